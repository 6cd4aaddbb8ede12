# SPDX-License-Identifier: Apache-2.0
"""AE-OT's extended map: between targets of neighbouring cells, not across gaps between modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import otcuda
from otcuda.errors import ArgumentError
from otcuda.transport.arrays import Home, to_numpy
from otcuda.transport.cells import CENTROIDS, GAP, Cells, top_values

WEIGHTS = ("gap", "centroid", "aeot")

_PROBES = 4096  # samples that the automatic angle and the unit are measured on
# Share of neighbouring cells that the automatic angle joins where there are no modes: 0.9 rejects 1
# to 3 % of the samples of a circle or a normal law, and so bends the law; 0.99 lets mixtures in.
_KEPT_PAIRS = 0.97
_TWO_MODES = (
    0.8  # share of variance between two classes from which angles count as bimodal; uniform: 0.75
)
_ROWS = 4096  # samples whose neighbours are held at once
_CENTROID_HITS = 32  # samples a cell, on average, behind the centroids


@dataclass(frozen=True)
class ExtendedMap:
    """Images of B samples with K candidate cells each, in the kind of x.

    Attributes:
        points: images, [B, D]; where not `valid`, those of the plain map.
        indices: targets of the K best cells, best first, [B, K] int64; the first is `assign(x)`.
        weights: their shares in the point, [B, K], not negative, sum 1; 0 for those across a gap.
        valid: False for samples in the singular set: all neighbours lie across a gap, [B] bool.
        angle: threshold that was used, radians.
    """

    points: Any
    indices: Any
    weights: Any
    valid: Any
    angle: float


class Extension:
    """What the extended map needs to know of fitted cells; measured once, when first asked for."""

    def __init__(self, cells: Cells, h: np.ndarray, seed: int = 0):
        self.cells, self.h, self.seed = cells, h, seed
        self._y = to_numpy(cells.targets(Home(None, "float64")))
        self._known: dict[str, Any] = {}

    def apply(self, x: Any, topk: int, angle: float | str, weights: str) -> tuple[np.ndarray, ...]:
        """Shares [B, K], cells [B, K] and validity [B] of samples x [B, D], NumPy."""
        home = Home.of(x)
        y, h = self.cells.targets(home), home.bring(self.h)
        threshold = self.threshold(angle)
        planes = self._planes(scaled=angle == "auto")
        parts = []
        for at in range(0, max(1, len(x)), _ROWS):
            rows = x[at : at + _ROWS]
            value, cell = map(to_numpy, top_values(rows, y, h, topk))
            kept = plane_angles(planes, cell) <= threshold
            kept[:, 0] = True
            valid = kept[:, 1:].any(1) | (cell.shape[1] == 1)
            parts.append((self._shares(to_numpy(rows), value, cell, kept, weights), cell, valid))
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    def threshold(self, angle: float | str) -> float:
        """The angle itself; "auto": valley of the angles of neighbours, or 97 % quantile."""
        if angle != "auto":
            return float(angle)
        if "angle" not in self._known:
            self._known["angle"] = self._automatic_angle()
        return self._known["angle"]

    def _automatic_angle(self) -> float:
        if self.cells.n == 1:
            return math.pi
        home = self.cells.home
        x = self.cells.sample(_PROBES, self.seed, GAP, 1)
        cell = to_numpy(top_values(x, self.cells.targets(home), home.bring(self.h), 2)[1])
        theta = np.sort(plane_angles(self._planes(scaled=True), cell)[:, 1])
        split, share = otsu(theta)
        return split if share > _TWO_MODES else float(np.quantile(theta, _KEPT_PAIRS))

    def _planes(self, scaled: bool) -> np.ndarray:
        """Unit normals (y, -1) of the supporting planes, eq. (13), [n, D+1].

        Scaled: of y - mean in units of its root mean square a coordinate, so that angles do not
            depend on
        the unit of the targets; else of the targets as they are, the paper's meaning.
        """
        name = "scaled" if scaled else "raw"
        if name not in self._known:
            y = self._y if scaled else self._y + self.cells.centre
            square = (self.cells.weights @ (self._y**2)).mean()
            scale = math.sqrt(square) if scaled and square > 0 else 1.0
            normals = np.concatenate([y / scale, np.full((len(y), 1), -1.0)], 1)
            self._known[name] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        return self._known[name]

    def _shares(
        self, x: np.ndarray, value: np.ndarray, cell: np.ndarray, kept: np.ndarray, weights: str
    ) -> np.ndarray:
        if weights == "gap":
            shares = np.exp((value - value[:, :1]).astype(np.float64) / self.unit())
        elif weights == "centroid":
            centroid = self.centroids()[cell]
            distance = np.linalg.norm(x[:, None] - centroid, axis=2)
            shares = 1 / np.maximum(
                np.nan_to_num(distance, nan=np.inf), 1e-12
            )  # an empty cell has none
        else:
            return _released_shares(cell, kept)
        shares = np.where(kept, shares, 0)
        shares[shares.sum(1) == 0, 0] = 1
        return shares / shares.sum(1, keepdims=True)

    def unit(self) -> float:
        """Mean gap of best and second-best value."""
        if "unit" not in self._known:
            self._known["unit"] = max(self.cells.gap(self.h, self.seed, 2, _PROBES), 1e-30)
        return self._known["unit"]

    def centroids(self) -> np.ndarray:
        """Mean sample of each cell, [n, D]; NaN where no sample fell."""
        if "centroids" not in self._known:
            cells = self.cells
            total, hits = np.zeros((cells.n, cells.D)), np.zeros(cells.n)
            for x in cells.blocks(_CENTROID_HITS * cells.n, self.seed, CENTROIDS):
                index = cells.scan(x, self.h, cells.home)[1]
                hits += to_numpy(otcuda.cell_mass(index, cells.n))
                for d in range(cells.D):
                    total[:, d] += to_numpy(otcuda.cell_mass(index, cells.n, x[:, d]))
            total[hits == 0] = np.nan
            self._known["centroids"] = total / np.maximum(hits, 1)[:, None]
        return self._known["centroids"]


def plane_angles(planes: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Angles between the plane of the first cell and those of all, eq. (13), radians [B, K]."""
    chord = np.linalg.norm(planes[cell] - planes[cell[:, :1]], axis=2)
    return 2 * np.arcsin(np.minimum(chord / 2, 1))  # unlike arccos, exact for small angles


def otsu(values: np.ndarray) -> tuple[float, float]:
    """Split of sorted values with the largest variance between both classes, and its share.

    Source: Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9 (1979).
    """
    variance = values.var()
    if variance == 0:
        return float(values[-1]), 0.0
    below = np.arange(1, len(values)) / len(values)
    mean_below = np.cumsum(values)[:-1] / len(values)
    between = (values.mean() * below - mean_below) ** 2 / (below * (1 - below))
    best = int(between.argmax())
    return float(values[best] + values[best + 1]) / 2, float(between[best] / variance)


def check_options(topk: int, angle: float | str, weights: str) -> None:
    """Raises ArgumentError where an option of the extended map is none."""
    if not isinstance(topk, (int, np.integer)) or topk < 1:
        raise ArgumentError(f"extended_map: topk is {topk!r}, expected an integer from 1")
    is_number = isinstance(angle, (int, float, np.floating)) and not isinstance(angle, bool)
    if angle != "auto" and not (is_number and 0 <= angle <= math.pi):
        raise ArgumentError(
            f"extended_map: angle is {angle!r}, expected 'auto' or radians in [0, pi]"
        )
    if weights not in WEIGHTS:
        raise ArgumentError(
            f"extended_map: weights is {weights!r}, expected {', '.join(map(repr, WEIGHTS))}"
        )


def _released_shares(cell: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """1/4 and 3/4 for the winner and its best kept neighbour, the lower number first.

    So does AE-OT's code, which then keeps one pair for each lower number of a batch; here each
    sample stays its own.
    """
    shares = np.zeros(cell.shape)
    shares[:, 0] = 1
    rows = np.flatnonzero(kept[:, 1:].any(1))
    if not len(rows):
        return shares
    other = kept[rows, 1:].argmax(1) + 1
    first = np.where(cell[rows, 0] < cell[rows, other], 0.25, 0.75)
    shares[rows, 0], shares[rows, other] = first, 1 - first
    return shares

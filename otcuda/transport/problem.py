# SPDX-License-Identifier: Apache-2.0
"""A problem as a user states it, checked, and how its N targets become n cells and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport.arrays import Home, real_numpy
from otcuda.transport.cells import Cells
from otcuda.transport.sources import make_source

_BLOCK = 1 << 12  # targets compared at a time


class Problem:
    """Targets [N, D], weights [N] and source.

    Copies of a target are one cell, since only the sum of their masses is determined; targets
    without weight have no cell. Solvers see the cells sorted by their coordinates, so that
    permuting the targets permutes the solution bit for bit; everybody else sees them in the order
    of the targets, so that ties go to the lowest.

    Attributes:
        y: targets, NumPy [N, D]; nu: weights, float64 [N], sum 1.
        home: kind, device and dtype of the targets that were given.
        cell_of: cell of each target, [N]; -1 without weight.
        target_of: lowest target of each cell, ascending, [n].
        cells: the cells in the order of `target_of`.
    """

    def __init__(self, y: Any, nu: Any, source: Any):
        self.y = _checked_targets(y)
        self.home = Home.of(y) if hasattr(y, "dtype") else Home(None, self.y.dtype.name)
        self.N, self.D = self.y.shape
        self.nu = _checked_weights(nu, self.N)
        self.source = make_source(source, self.D)
        self._make_cells()
        self.cells = self._cells(self.target_of)

    def _make_cells(self) -> None:
        live = np.flatnonzero(self.nu > 0)
        rows = self.y if len(live) == self.N else np.ascontiguousarray(self.y[live])
        first, inverse = _distinct(rows)
        self._sorted_targets = live[first]
        self._place = np.argsort(self._sorted_targets)  # which sorted cell is the k-th of ours
        ours = np.empty_like(self._place)
        ours[self._place] = np.arange(len(ours))
        self.target_of = self._sorted_targets[self._place]
        self.cell_of = np.full(self.N, -1, np.int64)
        self.cell_of[live] = ours[inverse]
        self._weights = np.bincount(self.cell_of[live], self.nu[live])

    def _cells(self, targets: np.ndarray) -> Cells:
        weights = self._weights[self.cell_of[targets]]
        whole = len(targets) == self.N and (targets[1:] > targets[:-1]).all()
        y = self.y if whole else self.y[targets]
        return Cells(y, weights / weights.sum(), self.source, self._device())

    def _device(self) -> Any:
        """Where solvers run: on the CPU everything is NumPy, whose results are the same bits."""
        device = self.home.device
        return None if device is None or device.type == "cpu" else device

    def sorted_cells(self) -> Cells:
        """The cells in the order in which solvers see them."""
        return self._cells(self._sorted_targets)

    def from_sorted(self, h: np.ndarray) -> np.ndarray:
        """Heights of `sorted_cells()` as heights of `cells`, shifted to sum nu h = 0."""
        h = h - (self.sorted_weights() * h).sum()
        return h[self._place]

    def sorted_weights(self) -> np.ndarray:
        """Weights of `sorted_cells()`, [n]."""
        weights = self._weights[self.cell_of[self._sorted_targets]]
        return weights / weights.sum()

    def heights_of_targets(self, h: np.ndarray) -> np.ndarray:
        """Heights of cells as heights of targets, [N]: copies share theirs, no weight is -inf."""
        out = np.full(self.N, -math.inf)
        held = self.cell_of >= 0
        out[held] = h[self.cell_of[held]]
        return out

    def mass_of_targets(self, mass: np.ndarray) -> np.ndarray:
        """Mass of the cells as mass of the targets, [N]: copies divide theirs by weight."""
        held = self.cell_of >= 0
        out = np.zeros(self.N)
        cell = self.cell_of[held]
        out[held] = mass[cell] * self.nu[held] / self._weights[cell]
        return out


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First of each set of equal rows in the order of their bytes, and the set of each row.

    As np.unique has it, which would make three more copies of the rows.
    """
    order = rows.view(np.dtype((np.void, rows.strides[0])))[:, 0].argsort(kind="stable")
    new = np.ones(len(rows), bool)
    for at in range(1, len(rows), _BLOCK):
        here, before = order[at : at + _BLOCK], order[at - 1 : at - 1 + _BLOCK]
        new[at : at + _BLOCK] = (rows[here] != rows[before[: len(here)]]).any(1)
    inverse = np.empty(len(rows), np.int64)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse


def _checked_targets(y: Any) -> np.ndarray:
    numbers = real_numpy("y", y)
    if numbers.ndim != 2 or min(numbers.shape) < 1:
        raise ShapeError(
            f"SemiDiscreteOT takes y [N, D], N >= 1, D >= 1; got {list(numbers.shape)}"
        )
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers).all(1)))
        raise ArgumentError(f"y is not finite: row {row} of {len(numbers)} holds NaN or infinity")
    return np.ascontiguousarray(numbers) + 0.0  # a copy of our own, in which -0.0 is 0.0


def _checked_weights(nu: Any, N: int) -> np.ndarray:
    if nu is None:
        return np.full(N, 1 / N)
    weights = real_numpy("nu", nu).astype(np.float64)
    if weights.shape != (N,):
        raise ShapeError(
            f"SemiDiscreteOT takes y [{N}, D] with nu [{N}]; got nu {list(weights.shape)}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ArgumentError("nu holds weights that are negative or not finite")
    total = math.fsum(weights)  # in any order of the targets the same
    if abs(total - 1) > 1e-4:
        raise ArgumentError(f"nu sums to {total:.6g}, expected 1; pass nu / nu.sum()")
    return weights / total

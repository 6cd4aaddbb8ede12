# SPDX-License-Identifier: Apache-2.0
"""The cells of a problem: distinct targets with weight, a source, and what scans say of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import otcuda
from otcuda._lists import top_cells
from otcuda.transport.arrays import Home, is_torch, to_numpy
from otcuda.transport.estimators import Chi2, chi2_exact, chi2_from_counts
from otcuda.transport.sources import Source, key

# Purposes of random numbers: no two share a key.
TRAINING, GAP, START, SAMPLING, MASS, CENTROIDS, VALIDATION = range(7)  # VALIDATION + its round

_SCAN_WORK = 1 << 30  # multiply-adds of one block of a scan: how long a deadline may go unheard
_BLOCK = 1 << 12  # targets
_TABLE_SIZE = 1 << 22  # scores held at once where more than the best one is wanted


def _never() -> None:
    return None


class Cells:
    """n different targets, their weights and the source; heights are float64 [n] of NumPy here.

    Attributes:
        weights: weight of each cell, positive, sum 1, float64 [n].
        centre: mean target, float64 [D]; taken off, since <x, centre> is common to all scores of an
            x.
        source: distribution of x.
        device: where scans run; None is NumPy on the CPU.
    """

    def __init__(self, y: np.ndarray, weights: np.ndarray, source: Source, device: Any):
        self.n, self.D = y.shape
        self.weights, self.source, self.device = weights, source, device
        self.centre = np.zeros(self.D)
        for at in range(0, self.n, _BLOCK):  # no copy of y in float64
            rows = slice(at, at + _BLOCK)
            self.centre += (weights[rows, None] * y[rows]).sum(0)
        self._y = y
        self._targets: dict[Home, Any] = {}

    @property
    def home(self) -> Home:
        """Where and in which precision scans run."""
        # On a line cells are intervals as narrow as their weight: float32 would blur a thousand.
        return Home(self.device, "float64" if self.D == 1 else "float32")

    def targets(self, home: Home) -> Any:
        """Centred targets, [n, D], in `home`."""
        if home not in self._targets:
            y = np.empty(self._y.shape, home.dtype)
            np.subtract(self._y, self.centre, out=y, casting="same_kind")
            self._targets[home] = home.bring(y)
        return self._targets[home]

    def scan(self, x: Any, h: Any, home: Home) -> tuple[Any, Any]:
        """Value (without <x, centre>) and cell of each sample, [B] both."""
        return otcuda.power_argmax(x, self.targets(home), home.bring(h))

    def sample(self, n: int, seed: int, purpose: int, part: int = 0) -> Any:
        """Samples [n, D] of the source that depend on (seed, purpose, part) alone."""
        return self.source.sample(n, key(seed, purpose, part), self.D, self.home)

    def block_size(self) -> int:
        """Samples of a block of `blocks`."""
        return max(256, min(1 << 18, _SCAN_WORK // (self.n * self.D)))

    def blocks(self, M: int, seed: int, purpose: int):
        """Yields M samples in blocks that one scan takes at a time."""
        size = self.block_size()
        for part, start in enumerate(range(0, M, size)):
            yield self.sample(min(size, M - start), seed, purpose, part)

    def count(self, x: Any, h: np.ndarray) -> np.ndarray:
        """Samples in each cell, int64 [n]."""
        return to_numpy(otcuda.cell_mass(self.scan(x, h, self.home)[1], self.n))

    def counts(
        self,
        h: np.ndarray,
        M: int,
        seed: int,
        purpose: int,
        stop: Callable[[], Any] = _never,
    ) -> np.ndarray:
        """Cells of M fresh samples, counted, int64 [n]; fewer samples once `stop()` is true."""
        counts = np.zeros(self.n, np.int64)
        for x in self.blocks(M, seed, purpose):
            counts += self.count(x, h)
            if stop():
                break
        return counts

    def chi2(
        self,
        h: np.ndarray,
        M: int,
        seed: int,
        purpose: int,
        stop: Callable[[], Any] = _never,
    ) -> Chi2:
        """chi2 on M fresh samples, or exactly where the source has no more points than that."""
        if self.n == 1:
            return Chi2(0.0, (0.0, 0.0), 0, exact=True)
        points = self.source.points
        if points is not None and len(points) <= M:
            return chi2_exact(self.point_mass(h), self.weights, len(points))
        return chi2_from_counts(self.counts(h, M, seed, purpose, stop), self.weights)

    def point_mass(self, h: np.ndarray) -> np.ndarray:
        """Mass of each cell under a finite source, exact, [n]."""
        x = self.home.bring(self.source.points)
        return self.count(x, h) / len(x)

    def gap(self, h: np.ndarray, seed: int, part: int = 0, samples: int = 512) -> float:
        """Mean distance of best and second-best value, the natural unit of heights (eq. 7)."""
        home = self.home
        x, y, heights = self.sample(samples, seed, GAP, part), self.targets(home), home.bring(h)
        if is_torch(x) and x.is_cuda:  # where the operator has no gap yet
            scores = (x @ y.T + heights).topk(min(2, self.n), 1).values
            return float((scores[:, 0] - scores[:, -1]).mean())
        gap = otcuda.power_argmax(x, y, heights, return_gap=True)[2]
        return float(to_numpy(gap).mean(dtype=np.float64))

    def pairs_that_meet(self, h: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Best and second-best cells of n fresh samples: distinct pairs [E, 2] and hits [E]."""
        home = Home(None, "float32")
        y, heights = to_numpy(self.targets(home)), h.astype(np.float32)
        found = np.zeros(0, np.int64)
        for x in self.blocks(n, seed, MASS):
            x = np.ascontiguousarray(home.bring(to_numpy(x)))
            out = (
                np.empty((len(x), 2), np.int32),
                np.empty((len(x), 2), "f4"),
                np.empty(len(x), "f4"),
            )
            top_cells(x, y, heights, out)
            two = np.sort(out[0].astype(np.int64), 1)
            found = np.concatenate([found, two[:, 0] * self.n + two[:, 1]])
        codes, hits = np.unique(found, return_counts=True)
        return np.stack([codes // self.n, codes % self.n], 1), hits


def top_values(x: Any, y: Any, h: Any, k: int) -> tuple[Any, Any]:
    """The k best values of each sample, best first, and their cells, [B, k]; never B x N at once.

    The first column is power_argmax's winner, whatever the rounding of a matrix product says.
    """
    value, index = otcuda.power_argmax(x, y, h)
    rows = max(1, _TABLE_SIZE // len(y))
    parts = [
        _top_rows(x[at : at + rows], y, h, value[at : at + rows], index[at : at + rows], k)
        for at in range(0, max(1, len(x)), rows)
    ]
    values, indices = zip(*parts, strict=True)
    if is_torch(x):
        import torch

        return torch.cat(values), torch.cat(indices)
    return np.concatenate(values), np.concatenate(indices)


def _top_rows(x: Any, y: Any, h: Any, value: Any, index: Any, k: int) -> tuple[Any, Any]:
    scores = x @ y.T + h
    k = min(k, len(y))
    if is_torch(scores):
        scores.scatter_(1, index[:, None], math.inf)
        best, order = scores.topk(k, 1)
        best[:, 0] = value
        return best.minimum(value[:, None]), order
    np.put_along_axis(scores, index[:, None], np.inf, 1)
    order = np.argpartition(-scores, k - 1, 1)[:, :k]
    best = np.take_along_axis(scores, order, 1)
    by_value = np.argsort(-best, 1, kind="stable")
    order, best = np.take_along_axis(order, by_value, 1), np.take_along_axis(best, by_value, 1)
    best[:, 0] = value
    return np.minimum(best, value[:, None]), order

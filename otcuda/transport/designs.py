# SPDX-License-Identifier: Apache-2.0
"""Pools of samples that are drawn again rather than kept: independent, Sobol points, or products.

A pool is its key: block b of it is a function of (key, b). docs/transport.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import otcuda
from otcuda._lists import (
    HALVES,
    SOBOL_DIMENSIONS,
    Lists,
    TargetIndex,
    sobol_samples,
    top_cells,
)
from otcuda.transport.arrays import Home
from otcuda.transport.estimators import Chi2, chi2_from_counts
from otcuda.transport.sources import NAMED, Source

_GROUP = HALVES**2
_BLOCK = 4096  # samples of a block where nothing asks for another size
_AUDIT = 16  # one sample in so many is scanned again


def takes_sobol(D: int, named: bool) -> bool:
    """Whether Sobol points are there: they cost no more than independent ones, and tell more."""
    return named and D <= SOBOL_DIMENSIONS


@dataclass
class Audit:
    """What every 16th sample of a pool says of a move.

    Attributes:
        missed: share of those whose list lacks its winner.
        rise: of the mean best value; variance: of that mean.
        samples: that were scanned.
    """

    missed: float
    rise: float
    variance: float
    samples: int


class Pool:
    """M samples of a source, and where their lists lie.

    Attributes:
        M: samples; rows: their place in the lists of the solver.
        design: "iid"; "product": samples are all pairs of 16 left and 16 right halves, group by
            group; "sobol": part of the sequence of Sobol points that `key` has scrambled.
        first: number of the first of these points. Pools that follow each other in one sequence are
            together as even as one of their size.
        h: heights at which the lists were made, float64 [N].
    """

    def __init__(
        self,
        source: Source,
        D: int,
        key: int,
        M: int,
        design: str = "iid",
        block: int = _BLOCK,
        first: int = 0,
    ):
        self.source, self.D, self.key, self.design = source, D, key, design
        self.product, self.first = design == "product", first
        unit = _GROUP if self.product else 1
        self.M, self.block = max(1, M // unit) * unit, max(1, block // unit) * unit
        # First sample and size of each block.
        self.places = [
            (start, min(self.block, self.M - start)) for start in range(0, self.M, self.block)
        ]
        self.rows = slice(0, 0)
        self.h: np.ndarray | None = None
        # The two sides of a product are other coordinates in every pool.
        self.order = np.random.default_rng(key).permutation(D) if self.product else None
        self._kept: dict[int, np.ndarray] = {}

    def blocks(self, share: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows of the pool and their samples, [n, D] or [groups, 16, D], block by block.

        Args:
            share: only the first 1 / share of each block.
        """
        unit = _GROUP if self.product else 1
        for number, (start, n) in enumerate(self.places):
            part = max(1, n // unit // share) * unit
            yield slice(start, start + part), self._samples(number, n, part)

    def _samples(self, number: int, n: int, part: int) -> np.ndarray:
        rows = part // HALVES if self.product else part
        if self.design == "sobol":
            x = np.empty((rows, self.D), np.float32)
            offset = self.first + self.places[number][0]
            return sobol_samples(x, self.source.name, seed=self.key, offset=offset)
        if self.source.name in NAMED:
            x = np.empty((rows, self.D), np.float32)
            otcuda.source_samples(x, self.source.name, seed=self.key, stream=number + 1)
            return x.reshape(-1, HALVES, self.D) if self.product else x
        if number not in self._kept:  # a sampler of the user's may not give the same twice
            key = int(np.random.SeedSequence([self.key, number]).generate_state(1, np.uint64)[0])
            self._kept[number] = self.source.sample(n, key >> 1, self.D, Home(None, "float32"))
        return np.ascontiguousarray(self._kept[number][:part])

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Targets with their coordinates in the order of this pool."""
        return np.ascontiguousarray(y[:, self.order]) if self.product else y

    def scan(
        self, targets: TargetIndex, h: np.ndarray, lists: Lists, tick: Callable[[], None]
    ) -> None:
        """Makes the lists of all samples at heights h; `lists` are those of the whole solver.

        `tick` is called before each block and may raise.
        """
        y, heights = self.targets(targets.y), h.astype(np.float32)
        targets.set_heights(heights)
        for rows, x in self.blocks():
            tick()
            part = lists.part(slice(self.rows.start + rows.start, self.rows.start + rows.stop))
            if self.product:
                top_cells(x, y, heights, part.arrays())  # reach holds the cut for a moment
            else:
                targets.lists(x, part.arrays(), start=self.h is not None)
            best = part.inner[:, 0] + heights[part.index[:, 0]]
            np.subtract(best, part.reach, out=part.reach)
        self.h = h.copy()

    def audit(self, targets: TargetIndex, h: np.ndarray, before: np.ndarray, lists: Lists) -> Audit:
        """Scans every 16th sample at heights h; the lists have been good at heights `before`."""
        y, heights = self.targets(targets.y), h.astype(np.float32)
        targets.set_heights(heights)
        missed, rises = 0, []
        for rows, x in self.blocks(_AUDIT):
            n = rows.stop - rows.start
            if self.product:
                index, inner = np.empty((n, 1), np.int32), np.empty((n, 1), np.float32)
                top_cells(x, y, heights, (index, inner, np.empty(n, np.float32)))
                index, inner = index[:, 0], inner[:, 0]
            else:
                index, inner = targets.winners(x)
            truth = inner + heights[index]
            listed = lists.part(slice(self.rows.start + rows.start, self.rows.start + rows.stop))
            slack = 1e-5 * np.abs(truth)
            missed += int((truth > listed.values(h) + slack).sum())
            rises.append(truth.astype(np.float64) - listed.values(before))
        rise = np.concatenate(rises)
        n = len(rise)
        return Audit(missed / n, float(rise.mean()), float(rise.var() / n), n)

    def whole(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows and samples [n, D], products written out, coordinates as in `targets`."""
        for rows, x in self.blocks():
            if self.product:
                k = self.D // 2
                left = np.repeat(x[:, :, None, :k], HALVES, 2)
                right = np.repeat(x[:, None, :, k:], HALVES, 1)
                x = np.concatenate([left, right], -1).reshape(-1, self.D)
            yield rows, np.ascontiguousarray(x)

    def chi2(self, lists: Lists, nu: np.ndarray) -> Chi2 | None:
        """Chi2 of the heights that the pool was scanned at, which must not have seen it.

        None for Sobol points: each of them avoids the others, those of earlier pools too.
        """
        if self.design == "sobol":
            return None
        N = len(nu)
        if not self.product:
            return chi2_from_counts(np.bincount(lists.index[self.rows, 0], minlength=N), nu)
        counts, inside = np.zeros(N, np.int64), np.zeros(N)
        for start, n in self.places:
            winner = lists.index[self.rows.start + start : self.rows.start + start + n, 0]
            counts += np.bincount(winner, minlength=N)
            cells, hits = np.unique(np.arange(n) // _GROUP * N + winner, return_counts=True)
            np.add.at(inside, cells % N, (hits * hits).astype(float))
        return chi2_from_counts(counts, nu, inside, _GROUP)

# SPDX-License-Identifier: Apache-2.0
"""Pools of samples that are drawn again rather than kept: independent, Sobol points, or products.

A pool is its key: block b of it is a function of (key, b). docs/transport.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import otcuda
from otcuda._lists import HALVES, SOBOL_DIMENSIONS, Lists, sobol_samples, top_cells
from otcuda.transport.arrays import Home
from otcuda.transport.estimators import Chi2, chi2_from_counts
from otcuda.transport.sources import NAMED, Source

_GROUP = HALVES**2
_BLOCK = 4096  # samples of a block where nothing asks for another size
_AUDIT = 16  # one sample in so many is scanned again
_SCRAMBLES = 8  # independent sets of Sobol points in a pool
_MOST_POINTS = 1 << 31  # of a set


def takes_sobol(D: int, named: bool) -> bool:
    """Whether Sobol points are there: they cost no more than independent ones, and tell more."""
    return named and D <= SOBOL_DIMENSIONS


@dataclass
class Tally:
    """What a scan of a pool has counted so far.

    Attributes:
        counts: samples in each cell, int64 [N]; inside: sum over independent groups of squared
            counts, float64 [N]; None for independent samples.
        group: counts of the group of Sobol points under way, int64 [N].
        value: sum of the best values; blocks: that were scanned; samples: in them.
    """

    counts: np.ndarray
    inside: np.ndarray | None = None
    group: np.ndarray | None = None
    value: float = 0.0
    blocks: int = 0
    samples: int = 0


class Pool:
    """M samples of a source, and where their lists lie.

    Attributes:
        M: samples; rows: their place in the lists of the solver.
        design: "iid"; "product": samples are all pairs of 16 left and 16 right halves, group by
            group; "sobol": eight sets of Sobol points, each with a scramble of its own.
        h: heights at which the lists were made, float64 [N].
    """

    def __init__(
        self, source: Source, D: int, key: int, M: int, design: str = "iid", block: int = _BLOCK
    ):
        self.source, self.D, self.key, self.design = source, D, key, design
        unit = {"iid": 1, "product": _GROUP, "sobol": _SCRAMBLES}[design]
        self.M, self.block = max(1, M // unit) * unit, max(1, block // unit) * unit
        self.product = design == "product"
        # Samples that depend on each other: blocks do not straddle two such sets.
        self.set = self.M // _SCRAMBLES if design == "sobol" else self.M
        self.places = [  # first sample and size of each block
            (start, min(self.block, begin + self.set - start))
            for begin in range(0, self.M, self.set)
            for start in range(begin, begin + self.set, self.block)
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
            scramble, first = divmod(self.places[number][0], self.set)
            x = np.empty((rows, self.D), np.float32)
            return sobol_samples(
                x,
                self.source.name,
                seed=self.key,
                stream=scramble,
                offset=first,
            )
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

    def scan(self, y: np.ndarray, h: np.ndarray, lists: Lists, tick: Callable[[], None]) -> None:
        """Makes the lists of all samples at heights h; `lists` are those of the whole solver.

        `tick` is called before each block and may raise.
        """
        y, heights = self.targets(y), h.astype(np.float32)
        for rows, x in self.blocks():
            tick()
            part = lists.part(slice(self.rows.start + rows.start, self.rows.start + rows.stop))
            top_cells(x, y, heights, part.arrays())  # reach holds the cut for a moment
            best = part.inner[:, 0] + heights[part.index[:, 0]]
            np.subtract(best, part.reach, out=part.reach)
        self.h = h.copy()

    def missed(self, y: np.ndarray, h: np.ndarray, lists: Lists) -> tuple[float, int]:
        """Share of every 16th sample whose list lacks its winner at heights h; samples scanned."""
        y, heights = self.targets(y), h.astype(np.float32)
        missed = scanned = 0
        for rows, x in self.blocks(_AUDIT):
            n = rows.stop - rows.start
            index, inner = np.empty((n, 1), np.int32), np.empty((n, 1), np.float32)
            top_cells(x, y, heights, (index, inner, np.empty(n, np.float32)))
            truth = inner[:, 0] + heights[index[:, 0]]
            listed = lists.part(slice(self.rows.start + rows.start, self.rows.start + rows.stop))
            slack = 1e-5 * np.abs(truth)
            missed += int((truth > listed.values(h) + slack).sum())
            scanned += n
        return missed / scanned, scanned

    def whole(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows and samples [n, D], products written out, coordinates as in `targets`."""
        for rows, x in self.blocks():
            if self.product:
                k = self.D // 2
                left = np.repeat(x[:, :, None, :k], HALVES, 2)
                right = np.repeat(x[:, None, :, k:], HALVES, 1)
                x = np.concatenate([left, right], -1).reshape(-1, self.D)
            yield rows, np.ascontiguousarray(x)

    def chi2(self, lists: Lists, nu: np.ndarray) -> Chi2:
        """Chi2 of the heights that the pool was scanned at, which must not have seen it."""
        tally = self.tally(len(nu))
        for start, n in self.places:
            rows = slice(self.rows.start + start, self.rows.start + start + n)
            self._enter(tally, lists.index[rows, 0])
        return self.chi2_of(tally, nu)

    def tally(self, N: int) -> Tally:
        """An empty tally."""
        tally = Tally(np.zeros(N, np.int64))
        if self.design != "iid":
            tally.inside = np.zeros(N)
        if self.design == "sobol":
            tally.group = np.zeros(N, np.int64)
        return tally

    def count(
        self,
        y: np.ndarray,
        h: np.ndarray,
        tally: Tally,
        tick: Callable[[Tally], Any],
    ) -> None:
        """Goes on with a tally at heights h, to the end of the pool.

        `tick` is called before each block and may raise.
        """
        y, heights = self.targets(y), h.astype(np.float32)
        for number, (_, n) in enumerate(self.places):
            if number < tally.blocks:
                continue
            tick(tally)
            x = self._samples(number, n, n)
            if self.product:
                winner, inner = np.empty((n, 1), np.int32), np.empty((n, 1), np.float32)
                top_cells(x, y, heights, (winner, inner, np.empty(n, np.float32)))
                winner = winner[:, 0]
                value = inner[:, 0] + heights[winner]
            else:
                value, winner = otcuda.power_argmax(x, y, heights)
            self._enter(tally, winner)
            tally.value += float(value.sum(dtype=np.float64))

    def _enter(self, tally: Tally, winner: np.ndarray) -> None:
        """Adds the winners of the next block."""
        N, n = len(tally.counts), len(winner)
        counts = np.bincount(winner, minlength=N)
        tally.counts += counts
        tally.blocks += 1
        tally.samples += n
        if self.product:
            group = np.arange(n) // _GROUP
            cells, hits = np.unique(group * N + winner, return_counts=True)
            np.add.at(tally.inside, cells % N, (hits * hits).astype(float))
        elif self.design == "sobol":
            tally.group += counts
            if tally.samples % self.set == 0:
                tally.inside += tally.group.astype(float) ** 2
                tally.group[:] = 0

    def chi2_of(self, tally: Tally, nu: np.ndarray) -> Chi2:
        """Chi2 of a whole tally, without bias."""
        if tally.inside is None:
            return chi2_from_counts(tally.counts, nu)
        group = _GROUP if self.product else self.set
        return chi2_from_counts(tally.counts, nu, tally.inside, group)

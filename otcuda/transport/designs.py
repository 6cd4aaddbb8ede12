# SPDX-License-Identifier: Apache-2.0
"""Pools of samples that are drawn again rather than kept: independent, or products of halves.

A pool is its key: block b of it is a function of (key, b). docs/transport.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import otcuda
from otcuda._lists import HALVES, Lists, top_cells
from otcuda.transport.arrays import Home
from otcuda.transport.estimators import Chi2, chi2_from_counts
from otcuda.transport.sources import NAMED, Source

_GROUP = HALVES**2
_BLOCK = 4096  # samples of a block where nothing asks for another size
_AUDIT = 16  # one sample in so many is scanned again


class Pool:
    """M samples of a source, and where their lists lie.

    Attributes:
        M: samples; rows: their place in the lists of the solver.
        product: samples are all pairs of 16 left and 16 right halves, group by group.
        h: heights at which the lists were made, float64 [N].
    """

    def __init__(
        self, source: Source, D: int, key: int, M: int, product: bool = False, block: int = _BLOCK
    ):
        self.source, self.D, self.key, self.product = source, D, key, product
        self.M = M // _GROUP * _GROUP if product else M
        self.block = block // _GROUP * _GROUP if product else block
        self.rows = slice(0, 0)
        self.h: np.ndarray | None = None
        # The two sides of a product are other coordinates in every pool.
        self.order = np.random.default_rng(key).permutation(D) if product else None
        self._kept: dict[int, np.ndarray] = {}

    def blocks(self, share: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows of the pool and their samples, [n, D] or [groups, 16, D], block by block.

        Args:
            share: only the first 1 / share of each block.
        """
        for number, start in enumerate(range(0, self.M, self.block)):
            n = min(self.block, self.M - start)
            unit = _GROUP if self.product else 1
            part = max(1, n // unit // share) * unit
            yield slice(start, start + part), self._samples(number, n, part)

    def _samples(self, number: int, n: int, part: int) -> np.ndarray:
        rows = part // HALVES if self.product else part
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
        winner = lists.index[self.rows, 0]
        counts = np.bincount(winner, minlength=len(nu))
        if not self.product:
            return chi2_from_counts(counts, nu)
        group = np.arange(self.M) // _GROUP
        cells, hits = np.unique(group * len(nu) + winner, return_counts=True)
        inside = np.bincount(cells % len(nu), (hits * hits).astype(float), len(nu))
        return chi2_from_counts(counts, nu, inside)

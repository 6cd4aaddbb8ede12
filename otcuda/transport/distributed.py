# SPDX-License-Identifier: Apache-2.0
"""The descent of "asgd" on many processes: samples or targets shared out, results the same.

Ranks share samples (each scans its rows of a batch, counts are summed) or, where the targets do not
fit a card, targets (each scans its own for the whole batch, the best keys win). Samples are rows of
a Philox sequence and counts are integers, so a step is the same bits for any number of ranks, and
the same as that of one process without ranks. docs/transport.md, section 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

import otcuda
from otcuda._lists import HALVES, AveragedState, top_cells
from otcuda.errors import ArgumentError, LimitError
from otcuda.transport.arrays import Home, to_numpy
from otcuda.transport.asgd import NUMPY, Descent, Rounds
from otcuda.transport.cells import Cells
from otcuda.transport.checkpoint import Checkpoint
from otcuda.transport.estimates import free_memory
from otcuda.transport.estimators import Chi2, chi2_from_counts
from otcuda.transport.fitting import FitResult, Goal, Run
from otcuda.transport.ranks import Ranks
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import NAMED, key

SHARDS = ("auto", "samples", "targets")

_CHUNK = 1 << 16  # samples drawn and scanned at once
_SHARE = 0.5  # of the free memory of a rank that whole targets may take
_GROUP = HALVES**2


def fit_distributed(
    ot: SemiDiscreteOT,
    group: Any = None,
    *,
    shard: str = "auto",
    device: Any = None,
    chi2: float = 0.02,
    max_samples: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FitResult:
    """`ot.fit("asgd", ...)` by all processes of a group together; each calls it and gets the map.

    Heights, chi2 and history (times aside) are the same bits on each rank and for any number of
    ranks; on the CPU they are those of `ot.fit("asgd", ...)`. A checkpoint holds no rank: it goes
    on with any number of them, and in `ot.fit`.

    Args:
        ot: the same problem on every rank.
        group: of torch.distributed (Gloo or NCCL); None is all processes. Its timeout is how long a
            rank waits for one that hangs.
        shard: "samples": each rank holds all targets and scans a share of the samples; "targets":
            each holds a share of the targets and scans all samples; "auto": "targets" where all
            targets would take more than half of the free memory of some rank.
        device: torch device to scan on, which then holds this rank's targets; None is where the
            targets are.
        chi2: goal, as of `SemiDiscreteOT.fit`, like all that follow.
        max_samples: that may be scanned by all ranks together.
        max_seconds: wall time; the first rank whose time is up stops all.
        seed: of all samples.
        callback: called on each rank; False from any of them stops all.
        checkpoint: file, written and read by rank 0 alone, after each stage and every 10 seconds.

    Returns:
        The same result on every rank; `samples` and `scanned` are of all together.

    Raises:
        ArgumentError: no process group, a source that is not a named one, a wrong option.
        RankError: a rank died or hung, or the ranks have different problems.
        LimitError: the targets do not fit.
    """
    ranks = Ranks(group)
    if shard not in SHARDS:
        raise ArgumentError(
            f"fit_distributed: shard is {shard!r}, expected {', '.join(map(repr, SHARDS))}"
        )
    if ot.source.name not in NAMED:
        raise ArgumentError(
            f"fit_distributed: source is {ot.source.name!r}, expected "
            f"{', '.join(map(repr, NAMED))}: ranks must be able to draw the same samples"
        )
    settings = (ot.source.name, "asgd", chi2, seed, "auto")  # as of `fit`, whose files these are
    options = {"max_samples": max_samples, "max_seconds": max_seconds}
    run = TeamRun(Goal(chi2, **options), callback, ranks)
    cells = ot._problem.sorted_cells()
    if cells.n == 1 or cells.D == 1:
        return ot.fit(chi2=chi2, seed=seed, callback=callback, **options)
    y = to_numpy(cells.targets(NUMPY))
    ranks.check_same("targets, weights or options", y, cells.weights, settings, max_samples)
    device = _checked_device(device, cells)
    rounds = _TeamRounds(cells, run, seed, _chosen(shard, cells, ranks, device), device)
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, y, cells.weights, *settings)
        data = ranks.bytes_from_first(kept.read() if ranks.rank == 0 else None)
        if data is not None:
            rounds.restore(*kept.parse(data))
        run.checkpoint = kept if ranks.rank == 0 else None
    try:
        rounds.solve()
    except KeyboardInterrupt:
        if run.best is not None:
            ot._set(ot._problem.from_sorted(run.best), None)
        raise
    result = run.result(rounds.best[0], cells.n)
    ot._set(ot._problem.from_sorted(rounds.best[1]), result)
    return result


def _checked_device(device: Any, cells: Cells) -> Any:
    if device is None:
        return cells.device
    import torch

    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"fit_distributed: device is {device!r}, expected a torch device"
        ) from error


def _chosen(shard: str, cells: Cells, ranks: Ranks, device: Any) -> str:
    """What ranks share: samples as long as all targets take half of the memory at most."""
    free = free_memory()
    if device is not None and device.type == "cuda":
        import torch

        free = float(torch.cuda.mem_get_info(device)[0])
    whole = 4.0 * cells.n * cells.D
    if shard == "auto":
        shard = "targets" if ranks.any(whole > _SHARE * free) else "samples"
    needed = whole / (ranks.size if shard == "targets" else 1)
    if ranks.any(needed > free):
        raise LimitError(
            f"fit_distributed: {cells.n} targets take {needed / 1e9:.2g} GB a rank with "
            f"shard={shard!r}, more than some rank has free; more ranks take less of them"
        )
    return shard


def part_of(n: int, rank: int, size: int, unit: int = 1) -> tuple[int, int]:
    """First and last + 1 of the share of a rank in n things that come in units."""
    units = n // unit
    return units * rank // size * unit, units * (rank + 1) // size * unit


def winner_keys(value: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Integers in the order of the values, float32 [B]; of equal ones the lowest index is largest.

    The bits of the value, turned so that they ascend with it, stand above the complement of the
    index: the largest key of all ranks is what `power_argmax` over all targets says.
    """
    bits = (value.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)  # no -0
    ascending = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ascending << 32) | (0xFFFFFFFF - index.astype(np.int64))


def winners_of(keys: np.ndarray) -> np.ndarray:
    """The index in each of `winner_keys`."""
    return 0xFFFFFFFF - (keys & 0xFFFFFFFF)


class TeamRun(Run):
    """Clock and counters of which every rank has the same: what one decides, all do."""

    def __init__(self, goal: Goal, callback: Callable[..., Any] | None, ranks: Ranks):
        super().__init__(goal, callback)
        self.ranks = ranks

    def late(self) -> bool:
        """Whether the ranks have agreed to stop."""
        return self.stopped_by is not None

    def time_is_up(self) -> bool:
        """Whether it is here; what the ranks then agree on."""
        return self.seconds_left() <= 0

    def agree(self, time_is_up: bool) -> None:
        """Notes what came out of a reduction."""
        if time_is_up:
            self.stopped_by = self.stopped_by or "seconds"

    def report(self, **record: Any) -> None:
        """As of `Run`; a callback that stops one rank stops all."""
        before, self.stopped_by = self.stopped_by, None
        super().report(**record)
        flags = np.array([self.stopped_by is not None, self.time_is_up()], np.int64)
        by_callback, by_time = self.ranks.max(flags)
        self.stopped_by = before or ("callback" if by_callback else None)
        self.agree(bool(by_time))


class Shard:
    """Scans of one rank, and what all ranks make of them.

    Args:
        cells: the whole problem.
        run: of all ranks.
        shard: "samples" or "targets".
        device: torch device of the scans; None is NumPy.
    """

    def __init__(self, cells: Cells, run: TeamRun, shard: str, device: Any):
        self.cells, self.run, self.ranks = cells, run, run.ranks
        self.n, self.D, self.source = cells.n, cells.D, cells.source.name
        self.of_targets = shard == "targets"
        share = part_of(self.n, self.ranks.rank, self.ranks.size) if self.of_targets else None
        self.rows = slice(*share) if share else slice(0, self.n)
        self.home = Home(device, "float32")
        self.y = self.home.bring(to_numpy(cells.targets(NUMPY))[self.rows])

    def count(
        self, n: int, seed: int, stream: int, h: np.ndarray, product: bool = False
    ) -> np.ndarray:
        """Cells of the n samples of a stream, counted over all ranks, int64 [N]."""
        heights = h[self.rows].astype(np.float32)
        unit = _GROUP if product else 1
        rank, size = (0, 1) if self.of_targets else (self.ranks.rank, self.ranks.size)
        begin, end = part_of(n, rank, size, unit)
        found = [
            self._keys(at, min(end, at + _CHUNK), seed, stream, heights, product)
            for at in range(begin, end, _CHUNK)
        ]
        keys = np.concatenate([*found, [self.run.time_is_up()]])  # the flag travels along
        if self.of_targets:
            keys = self.ranks.max(keys)
        counts = np.bincount(winners_of(keys[:-1]), minlength=self.n)
        if not self.of_targets:
            both = self.ranks.sum(np.append(counts, keys[-1]))
            counts, keys = both[:-1], both
        self.run.agree(bool(keys[-1]))
        return counts

    def _keys(
        self, begin: int, end: int, seed: int, stream: int, heights: np.ndarray, product: bool
    ) -> np.ndarray:
        """Keys of some samples among the targets of this rank."""
        if not len(heights):  # more ranks than targets
            return np.full(end - begin, np.iinfo(np.int64).min)
        name = self.source
        if product:
            x = self.home.empty(((end - begin) // HALVES, self.D))
            otcuda.source_samples(x, name, seed=seed, stream=stream, offset=begin // HALVES)
            return self._product_keys(x, heights)
        x = self.home.empty((end - begin, self.D))
        otcuda.source_samples(x, name, seed=seed, stream=stream, offset=begin)
        found = otcuda.power_argmax(x, self.y, self.home.bring(heights))
        value, index = map(to_numpy, found)
        return winner_keys(value, index + self.rows.start)

    def _product_keys(self, x: Any, heights: np.ndarray) -> np.ndarray:
        x = x.reshape(-1, HALVES, self.D)
        n = len(x) * _GROUP
        index, inner = np.empty((n, 1), np.int32), np.empty((n, 1), np.float32)
        top_cells(x, self.y, heights, (index, inner, np.empty(n, np.float32)))
        cell = index[:, 0].astype(np.int64)
        return winner_keys(inner[:, 0] + heights[cell], cell + self.rows.start)

    def gap(self, n: int, seed: int, h: np.ndarray) -> float:
        """Mean gap of best and second-best value of n samples, the same on all ranks."""
        x = otcuda.source_samples(np.empty((n, self.D), np.float32), self.source, seed=seed)
        y, heights = to_numpy(self.y), h[self.rows].astype(np.float32)
        best, cut = np.full(n, -np.inf, np.float32), np.full(n, -np.inf, np.float32)
        if len(y):
            index, inner = np.empty((n, 1), np.int32), np.empty((n, 1), np.float32)
            top_cells(x, y, heights, (index, inner, cut))
            best = inner[:, 0] + heights[index[:, 0]]
        if self.of_targets:
            keys = winner_keys(best, np.full(n, self.ranks.rank))
            first = self.ranks.max(keys.copy())
            mine = keys == first
            # The second is behind the best here, or the best of another rank.
            second = self.ranks.max(winner_keys(np.where(mine, cut, best), np.zeros(n)))
            best, cut = value_of(first), value_of(second)
        return float(self.ranks.from_first(np.array([(best - cut).clip(0).mean()]))[0])


def value_of(keys: np.ndarray) -> np.ndarray:
    """The value in each of `winner_keys`, float32."""
    ascending = keys >> 32
    bits = np.where(ascending < 0, ascending ^ 0x7FFFFFFF, ascending)
    return bits.astype(np.int32).view(np.float32)


class _TeamDescent(Descent):
    """The descent with the steps of all ranks."""

    def __init__(self, plain: Descent, shard: Shard):
        super().__init__(plain.y, plain.nu, plain.source, plain.run)
        self.shard = shard

    def guess(self, seed: int) -> np.ndarray:
        """Where to start: rank 0's, since matrix products may round otherwise elsewhere."""
        first = self.shard.ranks.rank == 0
        return self.shard.ranks.from_first(super().guess(seed) if first else np.zeros(self.n))

    def measure_unit(self, h: np.ndarray, seed: int, samples: int = 256) -> None:
        """As of `Descent`; a rank that has come off its way is found here."""
        self.shard.ranks.check_same("the heights they came to", h)
        gap = self.shard.gap(samples, seed, h)
        self.run.scanned += samples
        self.unit = (self.unit + gap) / 2 if self.unit else gap

    def _steps(
        self, state: AveragedState, rate: np.ndarray, share: np.ndarray, seed: int, product: bool
    ) -> None:
        batch, limit = self.batch(product), max(2.0 * self.unit, 1e-30)
        for step, mean_share in zip(rate, share, strict=True):
            counts = self.shard.count(batch, seed, state.step + 1, state.h, product)
            # Rounded operation by operation as csrc/cpu/heights_asgd_solve.cpp does.
            move = step * (counts / batch - self.nu) / self.nu
            state.h -= move.clip(-limit, limit)
            state.mean += mean_share * (state.h - state.mean)
            state.step += 1
            if self.run.late():
                return


class _TeamRounds(Rounds):
    """The rounds with the measurements of all ranks."""

    def __init__(self, cells: Cells, run: TeamRun, seed: int, shard: str, device: Any):
        super().__init__(cells, run, seed)
        self.shard = Shard(cells, run, shard, device)
        self.descent = _TeamDescent(self.descent, self.shard)
        self.product = self.product and device is None  # devices scan single samples
        self.cells = _TeamCells(self.shard)


class _TeamCells:
    """What `Rounds` asks of cells: chi2 on fresh samples."""

    def __init__(self, shard: Shard):
        self.shard, self.n = shard, shard.n

    def chi2(self, h: np.ndarray, M: int, seed: int, purpose: int, _stop: Any) -> Chi2:
        """As of `Cells`, on the same samples."""
        shard, size = self.shard, self.shard.cells.block_size()
        counts = np.zeros(shard.n, np.int64)
        for part, start in enumerate(range(0, M, size)):
            counts += shard.count(min(size, M - start), key(seed, purpose, part), 0, h)
            if shard.run.stopped_by == "seconds":
                break
        return chi2_from_counts(counts, shard.cells.weights)

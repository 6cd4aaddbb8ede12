# SPDX-License-Identifier: Apache-2.0
"""method="asgd": stochastic gradient descent in natural units, and the burn-in of "pools".

A hit moves a height by a share of the mean gap of best and second-best value, so no constant
depends on the problem. The share falls like the root of the samples a cell has seen, and the answer
is a mean of all steps in which late ones count more. docs/transport.md, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from time import monotonic
from typing import Any

import numpy as np

from otcuda._lists import HALVES, AveragedState, heights_asgd_solve, top_cells
from otcuda.transport.arrays import Home, to_numpy
from otcuda.transport.cells import TRAINING, VALIDATION, Cells
from otcuda.transport.closed_forms import gaussian_guess
from otcuda.transport.estimators import Chi2, chi2_from_record
from otcuda.transport.fitting import FitResult, Run
from otcuda.transport.sources import NAMED, Source, key

NUMPY = Home(None, "float32")
_STAGES = 12  # between which the unit is measured anew
_FALL = 0.5  # the step falls as (1 + samples a cell)^-_FALL
_MEAN_POWER = 3  # the k-th step counts as k^_MEAN_POWER in the mean
_LIMIT = 2.0  # units that a height may move in a step
_FEWEST_PRODUCT = 4096  # targets: below, a batch is few groups
_PART = 1 << 16  # steps of a native call at most
_PROBES = 256  # samples behind a unit
_EFFICIENCY = 0.6  # what to plan with; measured 0.4 to 0.9 (docs/transport.md)
_LOW, _LOW_EFFICIENCY = 4, 0.4  # up to so many dimensions
_FEWEST = 16384  # samples of a first round
_LARGEST_START = 4096  # samples a cell of a first round
_ROUNDS = 64
_STALLED = 0.8  # share of chi2 that a doubling has left when it is called stalled


def sample_costs(n: int, D: int) -> tuple[float, float]:
    """What an independent sample and one of a product cost, per target; ps on a core of 2022."""
    return 50 + 27 * D, 110 + 2.5 * D + 5e5 / n


def product_variance(n: int) -> float:
    """Product samples that tell as much as one independent one (docs/transport.md, section 5)."""
    return 1 + 15 * n ** (-1 / 3)


def products_pay(n: int, D: int, named: bool) -> bool:
    """Whether product samples bring a descent on sooner: what one costs and what it tells."""
    plain, product = sample_costs(n, D)
    return named and D >= 2 and n >= _FEWEST_PRODUCT and product_variance(n) * product < plain


def check_width(n: int, D: int, product: bool) -> float:
    """Goal over the standard error of its check, for least work in all.

    M samples leave (N-1) / (efficiency M), which has to lie two errors below the goal; a check of
    v sqrt(2N) / goal samples has an error of goal / v. The sum of both is least at this v.
    """
    plain, cheap = sample_costs(n, D)
    ratio = plain / cheap if product else 1.0  # the check is on independent samples
    return max(8.0, 2 + math.sqrt(math.sqrt(2 * n) / (_EFFICIENCY * ratio)))


def planned_samples(n: int, D: int, chi2: float, product: bool) -> float:
    """Samples that should reach a goal."""
    told = _EFFICIENCY if D > _LOW else _LOW_EFFICIENCY
    within = chi2 * (1 - 2 / check_width(n, D, product))
    return min(max(_FEWEST, (n - 1) / (told * within)), max(_FEWEST, _LARGEST_START * n))


class Descent:
    """Targets, weights and source in NumPy on the CPU, and the descent on their heights.

    Attributes:
        y: centred targets, float32 [n, D]; nu: their weights, float64 [n].
        unit: mean gap of best and second-best value when last measured; 0 before.
    """

    def __init__(self, y: np.ndarray, nu: np.ndarray, source: Source, run: Run):
        self.y, self.nu, self.source, self.run = np.ascontiguousarray(y), nu, source, run
        self.n, self.D = y.shape
        self.unit = 0.0

    def draw(self, n: int, key: int) -> np.ndarray:
        """Samples [n, D], float32."""
        return np.ascontiguousarray(self.source.sample(n, key, self.D, NUMPY))

    def guess(self, seed: int) -> np.ndarray:
        """Where to start: heights of Gaussians."""
        x = self.draw(1024, key(seed, 1)).astype(np.float64)
        return gaussian_guess(x, self.y, self.nu, seed % 2**32)

    def measure_unit(self, h: np.ndarray, seed: int, samples: int = _PROBES) -> None:
        """Mean gap of best and second-best value on fresh samples."""
        if self.n < 2:
            return
        x = self.draw(samples, seed)
        index = np.empty((samples, 1), np.int32)
        inner, cut = np.empty((samples, 1), np.float32), np.empty(samples, np.float32)
        h = h.astype(np.float32)
        top_cells(x, self.y, h, (index, inner, cut))
        gap = float((inner[:, 0] + h[index[:, 0]] - cut).clip(0).mean())
        self.run.scanned += samples
        self.unit = (self.unit + gap) / 2 if self.unit else gap

    def batch(self, product: bool) -> int:
        """Samples of a step."""
        size = max(256, self.n // 8)
        return size // HALVES**2 * HALVES**2 if product else size

    def descend(
        self,
        state: AveragedState,
        samples: int,
        seed: int,
        product: bool = False,
        first: int | None = None,
        save: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Goes on from `state` for so many samples, fewer at a limit; returns the mean heights.

        Step s draws `batch` samples of stream s of `seed`. A descent that began at step `first` and
        was cut after a stage goes on to the same bits; `save` is called after each.
        """
        batch, run = self.batch(product), self.run
        first, steps = state.step if first is None else first, max(1, samples // batch)
        for stage in range(_STAGES):
            begin = first + steps * stage // _STAGES
            end = first + steps * (stage + 1) // _STAGES
            if begin == end or end <= state.step:
                continue
            if state.step == begin:  # else gone on from within the stage
                probes = min(_PROBES, max(16, steps * batch // 64))
                self.measure_unit(state.h, key(seed, 2, begin), probes)
            run.keep(state.mean)  # changed in place, by whole steps
            for k in self._parts(state.step, end, save):
                rate = (1 + k * batch / self.n) ** -_FALL * self.unit * batch / self.n
                share = np.minimum(1.0, (_MEAN_POWER + 1) / (k + _MEAN_POWER + 1))
                before = state.step
                self._steps(state, rate, share, seed, product)
                run.scanned += (state.step - before) * batch
                run.samples += (state.step - before) * batch
            run.report(stage="descent", unit=self.unit)
            if run.late() or state.step < end:
                break
            save()
        return state.mean.copy()

    def _parts(self, begin: int, end: int, save: Callable[[], None]) -> Iterator[np.ndarray]:
        """Numbers of the steps of a stage: a part of bounded size, no longer than a checkpoint."""
        checkpoint = self.run.checkpoint
        size = _PART if checkpoint is None else 1  # to see the speed
        while begin < end and not self.run.late():
            began = monotonic()
            yield np.arange(begin, min(begin + size, end))
            begin += size
            if checkpoint is None or begin >= end:
                continue
            if checkpoint.due():
                save()
            took = max(monotonic() - began, 1e-6)
            size = min(_PART, max(1, int(size * min(4.0, checkpoint.every / 4 / took))))

    def _steps(
        self,
        state: AveragedState,
        rate: np.ndarray,
        share: np.ndarray,
        seed: int,
        product: bool,
    ) -> None:
        batch, limit = self.batch(product), max(_LIMIT * self.unit, 1e-30)
        if self.source.name in NAMED:
            heights_asgd_solve(
                self.y, self.nu, self.source.name, state, rate=rate, share=share,
                batch=batch, limit=limit, seed=seed, product=product, callback=self.go_on,
            )  # fmt: skip
            return
        for step, mean_share in zip(rate, share, strict=True):
            counts = self.counts(self.draw(batch, key(seed, 3, state.step)), state.h)
            move = step * (counts / batch - self.nu) / self.nu
            state.h -= move.clip(-limit, limit)
            state.mean += mean_share * (state.h - state.mean)
            state.step += 1
            if self.run.late():
                return

    def go_on(self, _progress: float = 0.0) -> bool:
        """Whether no limit is reached: what native loops ask."""
        return not self.run.late()

    def counts(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        """Samples in each cell, [n]."""
        import otcuda

        index = otcuda.power_argmax(x, self.y, h.astype(np.float32))[1]
        return np.bincount(index[index >= 0], minlength=self.n)


class Rounds:
    """One descent in rounds that grow until the goal or a limit is reached.

    Attributes:
        best: last measurement but those that were worse, and its heights.
    """

    def __init__(self, cells: Cells, run: Run, seed: int):
        self.cells, self.run, self.seed = cells, run, seed
        self.descent = Descent(to_numpy(cells.targets(NUMPY)), cells.weights, cells.source, run)
        named = cells.source.name in NAMED and run.goal.design != "iid"
        self.product = products_pay(cells.n, cells.D, named)
        width = check_width(cells.n, cells.D, self.product)
        self.check = max(4096, math.ceil(width * math.sqrt(2 * cells.n) / run.goal.chi2))
        self.within = run.goal.chi2 * (1 - 2 / width)  # what the check will let pass
        self.budget = planned_samples(cells.n, cells.D, run.goal.chi2, self.product)
        self.growth = 1.0  # samples of the round under way, over all before
        self.state: AveragedState | None = None
        self.best: tuple[Chi2, np.ndarray] | None = None
        self.count = 0  # rounds that are over
        self.first, self.planned = 0, 0  # step and samples of the round under way
        self.short = False  # whether a limit left it less than it should have

    def solve(self) -> None:
        """Rounds until the goal, a limit, or one that did not help."""
        purpose = key(self.seed, TRAINING)
        if self.state is None:
            h = self.descent.guess(purpose)
            self.state = AveragedState(h.copy(), h.copy())
        while not self.run.stopped_by and self.count < _ROUNDS:
            if not self.planned:
                self._plan()
            if self.planned >= self.descent.batch(self.product):
                self.descent.descend(
                    self.state, self.planned, purpose, self.product, self.first, self.save
                )
            self.count += 1
            self._judge(self._validate())
            self.planned = 0
            self.save()

    def _plan(self) -> None:
        """Samples of the next round."""
        left = self.run.samples_left()
        room = (left - min(self.check, 0.2 * left)) / 1.3  # units are measured too
        self.first, self.planned = self.state.step, int(min(self.budget, room))
        self.short = room < self.budget

    def _validate(self) -> Chi2:
        """Chi2 on independent samples that no step has seen."""
        run, number = self.run, VALIDATION + self.count
        # No more than were fitted on: a goal far away is checked when it is near.
        M = int(max(2, min(self.check, max(run.samples, _FEWEST), run.samples_left())))
        chi2 = self.cells.chi2(
            self.state.mean, M, self.seed, number, lambda: run.seconds_left() <= 0
        )
        run.scanned += chi2.samples
        run.report(stage="validation", chi2=chi2.value, chi2_interval=chi2.interval)
        return chi2

    def _judge(self, chi2: Chi2) -> None:
        """Keeps the better heights, says why to stop, and plans the next round."""
        run, goal = self.run, self.run.goal.chi2
        # Averaging leaves 1 / (1 + growth); two fifths of that gain must be there, noise apart.
        helped = 1 - (1 - _STALLED) * 2 * self.growth / (1 + self.growth)
        if self.best is not None and chi2.interval[0] > helped * self.best[0].value:
            run.stopped_by = run.stopped_by or "stalled"
        before = math.nan if self.best is None else self.best[0].value
        if math.isnan(before) or chi2.value < before:
            self.best = chi2, self.state.mean.copy()
        if chi2.interval[1] <= goal:
            run.stopped_by = "chi2"
        elif self.short:
            run.stopped_by = run.stopped_by or run.scarcer()
        self.growth = float(np.clip(1.1 * chi2.value / self.within - 1, 0.3, 3))
        self.budget = run.samples * self.growth

    def save(self) -> None:
        """Writes where the descent stands, if a checkpoint was asked for."""
        if self.run.checkpoint is None or self.run.stopped_by:
            return
        arrays = {"h": self.state.h, "mean": self.state.mean}
        if self.best is not None:
            arrays["best"] = self.best[1]
        numbers = {
            "stage": "asgd",
            "run": self.run.state(),
            "unit": self.descent.unit,
            "step": self.state.step,
            "first": self.first,
            "planned": self.planned,
            "short": self.short,
            "growth": self.growth,
            "budget": self.budget,
            "count": self.count,
            "best": None if self.best is None else asdict(self.best[0]),
        }
        self.run.checkpoint.save(arrays, numbers)

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        """Goes back to what `save` wrote."""
        self.state = AveragedState(arrays["h"], arrays["mean"], numbers["step"])
        self.descent.unit = numbers["unit"]
        self.first, self.planned = numbers["first"], numbers["planned"]
        self.budget, self.count = numbers["budget"], numbers["count"]
        self.short, self.growth = numbers["short"], numbers["growth"]
        if numbers["best"] is not None:
            self.best = chi2_from_record(numbers["best"]), arrays["best"]
        self.run.go_on_from(numbers["run"])


def fit_asgd(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    """Heights float64 [n] and how it ended."""
    rounds = Rounds(cells, run, seed)
    found = run.checkpoint.load() if run.checkpoint is not None else None
    if found is not None:
        rounds.restore(*found)
    rounds.solve()
    return rounds.best[1], run.result(rounds.best[0], cells.n)

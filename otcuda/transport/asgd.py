# SPDX-License-Identifier: Apache-2.0
"""method="asgd": stochastic gradient descent in natural units, and the burn-in of "pools".

A hit moves a height by a share of the mean gap of best and second-best value, so no constant
depends on the problem. The share falls like the root of the samples a cell has seen, and the answer
is a mean of all steps in which late ones count more. docs/transport.md, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from otcuda._lists import HALVES, AveragedState, heights_asgd_solve, top_cells
from otcuda.transport.arrays import Home, to_numpy
from otcuda.transport.cells import TRAINING, VALIDATION, Cells
from otcuda.transport.closed_forms import gaussian_guess
from otcuda.transport.estimators import Chi2, samples_to_certify
from otcuda.transport.fitting import FitResult, Run
from otcuda.transport.sources import NAMED, Source, key

NUMPY = Home(None, "float32")
_STAGES = 12  # between which the unit is measured anew
_FALL = 0.5  # the step falls as (1 + samples a cell)^-_FALL
_MEAN_POWER = 3  # the k-th step counts as k^_MEAN_POWER in the mean
_LIMIT = 2.0  # units that a height may move in a step
_PROBES = 256  # samples behind a unit
_EFFICIENCY = 0.6  # what to plan with; measured 0.3 to 0.75 (docs/transport.md)
_FEWEST = 16384  # samples of a first round
_STALLED = 0.8  # share of chi2 that a longer round has left when it is called stalled


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
            self.measure_unit(
                state.h, key(seed, 2, begin), min(_PROBES, max(16, steps * batch // 64))
            )
            k = np.arange(begin, end)
            rate = (1 + k * batch / self.n) ** -_FALL * self.unit * batch / self.n
            share = np.minimum(1.0, (_MEAN_POWER + 1) / (k + _MEAN_POWER + 1))
            run.keep(state.mean)  # changed in place, by whole steps
            self._steps(state, rate, share, seed, product)
            run.scanned += (state.step - begin) * batch
            run.samples += (state.step - begin) * batch
            run.report(stage="descent", unit=self.unit)
            if run.late() or state.step < end:
                break
            save()
        return state.mean.copy()

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


def fit_asgd(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    """Heights float64 [n] and how it ended: rounds that grow until the goal or a limit."""
    descent = Descent(to_numpy(cells.targets(NUMPY)), cells.weights, cells.source, run)
    check = samples_to_certify(cells.n, run.goal.chi2)
    h = descent.guess(key(seed, TRAINING))
    state = AveragedState(h.copy(), h.copy())
    budget = max(_FEWEST, 1.1 * (cells.n - 1) / (_EFFICIENCY * run.goal.chi2))
    best: tuple[Chi2, np.ndarray] | None = None
    for count in range(1, 64):
        left = run.samples_left()
        held_back = min(check, 0.2 * left)
        room = (left - held_back) / 1.3  # units are measured too
        short = room < budget
        if room >= descent.batch(False):
            h = descent.descend(state, int(min(budget, room)), key(seed, TRAINING))
        M = int(max(2, min(check, run.samples_left())))
        chi2 = cells.chi2(h, M, seed, VALIDATION + count, lambda: run.seconds_left() <= 0)
        run.scanned += chi2.samples
        run.report(stage="validation", chi2=chi2.value, chi2_interval=chi2.interval)
        if best is not None and chi2.value > _STALLED * best[0].value:
            run.stopped_by = run.stopped_by or "stalled"
        if best is None or chi2.value < best[0].value or math.isnan(best[0].value):
            best = (chi2, h)
        if chi2.interval[1] <= run.goal.chi2:
            run.stopped_by = "chi2"
        elif short:
            run.stopped_by = run.stopped_by or run.scarcer()
        if run.stopped_by:
            break
        budget = run.samples * np.clip(1.3 * chi2.interval[1] / run.goal.chi2 - 1, 1, 3)
    return best[1], run.result(best[0], cells.n)

# SPDX-License-Identifier: Apache-2.0
"""method="adam": AE-OT's loop (An et al., ICLR 2020, algorithm 1) in units of the problem.

Kept from the paper: Adam on the heights with 0.9 and 0.999, the gradient `mass - nu` of a batch of
samples. Changed, each because the loop as published does not converge: samples are fresh (the
released code returns to the same points, so chi2 stays at the floor of that pool); the step is a
multiple of the mean gap of best and second-best value and falls geometrically to the step of
averaging (so no constant depends on the problem); it starts from the Gaussian guess; it stops on
chi2 of samples it has not seen. docs/transport.md, section 4.
"""

from __future__ import annotations

import numpy as np

import otcuda
from otcuda.transport.arrays import to_numpy
from otcuda.transport.cells import TRAINING, VALIDATION, Cells
from otcuda.transport.closed_forms import gaussian_heights
from otcuda.transport.estimators import Chi2, samples_to_certify
from otcuda.transport.fitting import FitResult, Run
from otcuda.transport.sources import NAMED, Stream, key

_BETAS = (0.9, 0.999)
_EPSILON = 1e-12  # gradients are about nu
_STAGES = 24  # of constant step; one native call each
_FIRST_STEP = 2.0  # a hit moves a height by so many units at the start of a round ...
_LAST_STEP = 0.4  # ... and by this over the hits that a cell gets in the round at its end
_EFFICIENCY = 0.4  # what to plan with; measured 0.4 to 0.55 for D = 2, 16, 64 (docs/transport.md)
_FEWEST = 16384  # samples of a first round
_WHOLE = 4096  # points of a finite source up to which each step sees all of them
_WHOLE_STEPS = 1000  # of a first round, then
_LARGEST_START = 512  # samples a cell of a first round
_STALLED = 0.8  # share of chi2 that a longer round has left when it is called stalled
_VALIDATION_SHARE = 0.2  # of a sample limit


def fit_adam(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    """Heights float64 [n] and how it ended; rounds grow until the goal or a limit is reached."""
    solver = _Adam(cells, run, seed)
    budget = solver.first_budget()
    best: tuple[Chi2, np.ndarray] | None = None
    while True:
        solver.round(budget)
        if run.stopped_by and best is not None:
            break  # a round cut short is worse than a finished one
        chi2 = solver.validate()
        # A round doubles the samples at least, so chi2 halves; else more of them will not help.
        if best is not None and chi2.value > _STALLED * best[0].value:
            run.stopped_by = run.stopped_by or "stalled"
        if best is None or chi2.value < best[0].value:
            best = (chi2, solver.h)
        if chi2.interval[1] <= run.goal.chi2:
            run.stopped_by = "chi2"
        elif solver.affordable() < budget:
            # What is left pays no round as long as the last, and a shorter one spoils its work.
            run.stopped_by = run.stopped_by or run.scarcer()
        if run.stopped_by:
            break
        budget *= np.clip(1.3 * chi2.interval[1] / run.goal.chi2, 2, 4)
    return best[1], run.result(best[0], cells.n)


class _Adam:
    """The heights and the rounds that improve them."""

    def __init__(self, cells: Cells, run: Run, seed: int):
        self.cells, self.run, self.seed = cells, run, seed
        self.targets = cells.targets(cells.home)
        self.weights = cells.home.bring(cells.weights)
        self._restart(gaussian_heights(cells, seed))
        self.rounds = 0
        self.busy = 0.0  # seconds of all stages
        self.check = samples_to_certify(cells.n, run.goal.chi2)
        self.unit = 0.0
        points = cells.source.points
        self.whole = points is not None and len(points) <= _WHOLE
        # Small batches are many steps; large ones keep a hit of each cell within Adam's memory.
        self.batch = max(64, min(cells.n // 8, 256), cells.n // 64)
        if self.whole:  # without noise, down to the exact coupling where there is one
            self.batch = len(points)

    @property
    def h(self) -> np.ndarray:
        """Heights, float64 [n]."""
        return to_numpy(self.state.h).astype(np.float64)

    def first_budget(self) -> float:
        """Samples of the first round: what should reach the goal, within reason."""
        n = self.cells.n
        if self.whole:
            return _WHOLE_STEPS * self.batch
        plan = 1.1 * (n - 1) / (_EFFICIENCY * self.run.goal.chi2)
        return max(_FEWEST, min(plan, _LARGEST_START * n))

    def affordable(self) -> float:
        """Samples that the limits still allow, at the speed seen so far."""
        seconds = self.run.seconds_left()
        if seconds == float("inf") or not self.busy:
            return self.run.samples_left()
        return max(0.0, min(self.run.samples_left(), 0.9 * seconds * self.run.samples / self.busy))

    def held_back(self) -> float:
        """Samples to leave to a validation."""
        return min(self.check, _VALIDATION_SHARE * self.affordable())

    def round(self, samples: float) -> None:
        """One descent of the step from `_FIRST_STEP` units to that of averaging.

        Args:
            samples: how many it should take; it takes fewer where a limit is nearer.
        """
        cells, run = self.cells, self.run
        self.rounds += 1
        self._restart(self.h)
        self.stream = Stream(cells.source, cells.D, cells.home, self._key())
        done, held_back = 0, 0.0
        for stage in range(_STAGES):
            left = _STAGES - stage
            if self.affordable() < self.batch:
                return
            if stage <= 1:  # the first one shows the speed
                held_back = self.held_back()
            share = min(samples - done, self.affordable() - held_back) / left
            steps = max(1, round(share / self.batch))
            if not self.busy and run.seconds_left() < float("inf"):
                steps = min(steps, 4)  # to see the speed
            planned = done + left * steps * self.batch
            last_step = min(_LAST_STEP * cells.n / planned, 0.5)
            step = _FIRST_STEP * (last_step / _FIRST_STEP) ** ((stage + 0.5) / _STAGES)
            done += self._stage(stage, step, steps)
            if run.late():
                return

    def validate(self) -> Chi2:
        """chi2 of the heights on samples that no round has seen."""
        run = self.run
        # No more than were fitted on: a goal far away is checked when it is near.
        M = int(max(2, min(self.check, max(run.samples, _FEWEST), self.affordable())))
        # A callback may have stopped the rounds; only the clock cuts a measurement short.
        chi2 = self.cells.chi2(
            self.h, M, self.seed, VALIDATION + self.rounds, lambda: run.seconds_left() <= 0
        )
        run.scanned += chi2.samples
        run.report(
            round=self.rounds, stage="validation", chi2=chi2.value, chi2_interval=chi2.interval
        )
        return chi2

    def _key(self) -> int:
        return key(self.seed, TRAINING, self.rounds)

    def _restart(self, h: np.ndarray) -> None:
        zeros = np.zeros(self.cells.n)
        self.state = otcuda.HeightsState(*map(self.cells.home.bring, (h, zeros, zeros.copy())))

    def _stage(self, stage: int, step: float, steps: int) -> int:
        """`steps` iterations with one learning rate; returns the samples they took."""
        cells, run, state = self.cells, self.run, self.state
        before, began = state.step, run.seconds()
        self._measure_unit(stage, steps * self.batch)
        # Adam divides by the size of the gradient: sqrt(nu / batch) where that is noise.
        rate = step * self.unit * (1.0 if self.whole else (self.batch / cells.n) ** 0.5)
        if cells.source.name in NAMED:
            otcuda.heights_adam_solve(
                self.targets,
                self.weights,
                cells.source.name,
                iterations=steps,
                batch=self.batch,
                lr=rate,
                betas=_BETAS,
                eps=_EPSILON,
                seed=self._key(),
                state=state,
                callback=lambda progress: not run.late(),
            )
        else:
            self._iterate(rate, steps)
        taken = (state.step - before) * self.batch
        self.busy += run.seconds() - began
        run.samples += taken
        run.scanned += taken
        run.report(round=self.rounds, stage=stage, unit=self.unit, step=step)
        return taken

    def _measure_unit(self, stage: int, samples: int) -> None:
        probes = min(max(samples // 8, 16), 512)
        part = self.rounds * _STAGES + stage
        gap = self.cells.gap(self.h, self.seed, part, probes)
        self.run.scanned += probes
        self.unit = (self.unit + gap) / 2 if self.unit else gap

    def _iterate(self, rate: float, steps: int) -> None:
        """What heights_adam_solve does, for sources that the native core does not know."""
        home, state = self.cells.home, self.state
        for _ in range(steps):
            x = self.stream.next(self.batch)
            index = otcuda.power_argmax(x, self.targets, state.h)[1]
            mass = home.floats(otcuda.cell_mass(index, self.cells.n)) / len(x)
            state.step += 1
            otcuda.heights_adam_step(
                state.h, state.m, state.v, mass, self.weights, state.step,
                lr=rate, betas=_BETAS, eps=_EPSILON,
            )  # fmt: skip
            if self.run.late():
                return

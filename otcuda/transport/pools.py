# SPDX-License-Identifier: Apache-2.0
"""method="pools": Newton's method on lists of the best cells of ever more samples.

Each sample is scanned about once: its K best cells and the best value left out tell how far heights
may move before its winner can leave the list. On the lists a Newton step costs a fraction of a
scan. Three guards keep the lists honest, each tested by taking it away (test_pools.py): the
audit scans every 16th sample again, a move counts only if the true energy fell, and cells without a
sample are raised until they touch one. docs/transport.md, section 5.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import otcuda
from otcuda._lists import AveragedState, Lists, TargetIndex
from otcuda.transport.arrays import to_numpy
from otcuda.transport.asgd import NUMPY, Descent
from otcuda.transport.cells import TRAINING, VALIDATION, Cells
from otcuda.transport.designs import Pool, takes_sobol
from otcuda.transport.estimators import Chi2, chi2_from_record, samples_to_certify
from otcuda.transport.fitting import FitResult, Goal, Late, Run
from otcuda.transport.rare_cells import rare_heights
from otcuda.transport.sources import NAMED, Source, key

_K = 15  # cells of a list
_TOLERANCE = 0.05  # chi2 left on the lists, of the least that as many samples can tell
_LOOSE = 0.3  # the same before the last pool
_MISSED = 1e-3  # share of winners that lists may lack
_SURE = 1.0  # standard errors by which an audit has to see the energy fall
_MOST_ROOM = 16.0  # of a move, in half reaches of the lists
_KEPT, _BROKEN = 0.9, 0.5  # shares of the fall of the energy that lists promised
_EMPTY = 1e-3  # share of cells without a sample from which they are raised
_RESCANS = 30  # of a fit
_IDLE, _IDLE_MOVES = 0.9, 4  # moves that bring no more end a fit
_NEAR = 0.5  # that is so near its goal
_REVIVALS = 3  # of a fit in more dimensions than _COARSE, where Newton raises cells as well
_ENOUGH = 3.5  # samples a cell below which an empty cell says nothing, and a fit little
_EFFICIENCY = 0.95  # of independent samples, to plan with
_PRODUCT_EFFICIENCY = 0.55
_SOBOL_GAIN, _SOBOL_GAIN_LOW = 1.2, 3.0  # of Sobol points, over the dimensions; up to _COARSE
_SAFETY = 1.2
_FEWEST = 4096  # samples of a first pool
_BURN = 16  # samples a cell of the first descent
_COARSE = 6  # dimensions up to which a start from fewer targets pays
_PRODUCT_SIZE, _PRODUCT_D = 1 << 16, 32  # targets and dimensions from which product samples pay
_STALLED = 0.9
_PATIENT = 6  # checks
_SMALLEST, _LARGEST = 512, 1 << 16  # targets for which "auto" begins with pools
PLANAR, PLANAR_SIZE = 2, 2048  # dimensions in which lists reach too little for more targets
_LEAST_SHARE = 12  # samples a cell below which it does not
_SCANS, _SCANS_LOW = 4, 20  # of a sample that a limit must allow; up to _COARSE dimensions


@dataclass
class Guards:
    """What keeps the lists honest; tests switch them off one by one."""

    audit: bool = True
    energy: bool = True
    revival: bool = True


GUARDS = Guards()


class Lister(Descent):
    """Pools, their lists, and the heights that balance the cells on them."""

    def __init__(self, y: np.ndarray, nu: np.ndarray, source: Source, run: Run):
        super().__init__(y, nu, source, run)
        self.pools: list[Pool] = []
        self.targets = TargetIndex(self.y)
        self.K = min(_K, self.n)
        self.lists = Lists(
            np.empty((0, self.K), np.int32), np.empty((0, self.K), np.float32), np.empty(0, "f4")
        )
        self.h = np.zeros(self.n)
        self.rescans = 0

    @property
    def M(self) -> int:  # noqa: N802
        """Samples in the pools."""
        return len(self.lists)

    def add(self, pool: Pool) -> None:
        """Scans a pool at the present heights and makes it part of the problem."""
        pool.rows = slice(self.M, self.M + pool.M)
        old = self.lists
        grown = [
            np.concatenate([a, np.empty((pool.M, *a.shape[1:]), a.dtype)]) for a in old.arrays()
        ]
        self.lists = Lists(*grown)
        self.pools.append(pool)
        self.scan(pool, self.h)

    def scan(self, pool: Pool, h: np.ndarray) -> None:
        """Lists of a pool at heights h."""
        self.run.afford(pool.M)
        pool.scan(self.targets, h, self.lists, self.run.tick)
        self.run.scanned += pool.M

    def linear(self, h: np.ndarray) -> float:
        """<nu, h>, by a sum that no BLAS shares out."""
        return float((self.nu * h).sum())

    def energy(self, h: np.ndarray) -> float:
        """Energy of heights on the lists, exact where they were made at h."""
        return self.lists.measure(h)[1] - self.linear(h)

    def fit(self, tolerance: float = _TOLERANCE, rescans: int = _RESCANS) -> float:
        """Balances the cells on all pools; returns the chi2 left, over that of sampling noise."""
        room, residual, least, idle = 1.0, math.inf, math.inf, 0
        for count in range(rescans):
            counts, value, gap, self.unit = self.lists.measure(self.h)
            energy = value - self.linear(self.h)
            empty = (counts == 0) & self.due()
            wanted = empty.mean() > _EMPTY or (count == 0 and self.unlisted())
            if wanted and self.may_revive(count, rescans) and self.revive(empty, energy):
                counts, value, gap, self.unit = self.lists.measure(self.h)
                energy = value - self.linear(self.h)
            # Of lists made at these heights: what a move promises holds on those before it only.
            residual = self.residual(counts)
            idle = idle + 1 if residual > _IDLE * least else 0
            least = min(least, residual)
            near = least < _NEAR and residual < 1.5 * least  # small cells allow no better
            if idle >= _IDLE_MOVES and near:
                break
            done, room, reached = self.move(gap.clip(1e-30), energy, room, tolerance)
            self.run.keep(self.h)
            if done:
                return residual if reached is None else reached
            if self.run.late():
                break
        return residual

    def residual(self, counts: np.ndarray) -> float:
        """Chi2 of counts on the lists, over that of sampling noise."""
        chi2 = ((counts / self.M - self.nu) ** 2 / self.nu).sum()
        return float(chi2 * self.M / max(1, self.n - 1))

    def move(
        self, gap: np.ndarray, energy: float, room: float, tolerance: float
    ) -> tuple[bool, float, float | None]:
        """Newton on the lists, then new lists where the old ones do not vouch for it.

        Returns:
            whether the fit is done, the room of the next move, chi2 left on the lists over that of
            sampling noise; None where no move was any good.
        """
        while True:
            h = self.h.copy()
            found = self.lists.newton(h, self.nu, gap, tolerance, room)
            if not found["iterations"] or np.array_equal(h, self.h):
                return True, room, found["residual"]
            doubted, rises = self.audited(h, found["unlisted"])
            if not doubted:
                self.h = h
                done = found["residual"] <= 2 * tolerance  # else it stopped for want of room
                return done, min(_MOST_ROOM, 2 * room), found["residual"]
            if not rises and self.rescanned(doubted, h, energy):
                kept = (energy - self.energy(h)) / (energy - found["energy"])
                room *= 2 if kept > _KEPT else 0.5 if kept < _BROKEN else 1
                return False, min(_MOST_ROOM, room), found["residual"]
            room /= 4
            if room < 1e-3 or self.run.late():
                return True, room, None

    def rescanned(self, doubted: list[Pool], h: np.ndarray, energy: float) -> bool:
        """New lists of some pools at heights h, and these heights, if the energy falls by them."""
        before = [pool.h for pool in doubted]
        for pool in doubted:
            self.scan(pool, h)
        self.rescans += 1
        if self.energy(h) < energy or not GUARDS.energy:
            self.h = h
            return True
        for pool, old in zip(doubted, before, strict=True):
            self.scan(pool, old)
        return False

    def audited(self, h: np.ndarray, unlisted: bool) -> tuple[list[Pool], bool]:
        """Pools whose lists do not vouch for heights h, by every 16th sample scanned there.

        Returns:
            the pools, and whether these samples fail to see the true energy fall by a standard
            error.
        """
        if not GUARDS.audit:
            return list(self.pools) if unlisted else [], False
        doubted, rise, variance = [], -self.linear(h - self.h), 0.0
        for pool in self.pools:
            self.run.afford(pool.M // 16)
            found = pool.audit(self.targets, h, self.h, self.lists)
            self.run.scanned += found.samples
            share = pool.M / self.M
            rise += share * found.rise
            variance += share * share * found.variance
            if unlisted or found.missed > _MISSED:
                doubted.append(pool)
        return doubted, GUARDS.energy and rise > -_SURE * math.sqrt(variance)

    def unlisted(self) -> bool:
        """Whether some cell is in no list, so that Newton cannot move it."""
        listed = ~self.due()
        listed[self.lists.index.ravel()] = True
        return not listed.all()

    def due(self) -> np.ndarray:
        """Cells whose weight asks for a sample at least: others are better left empty."""
        return self.nu * self.M >= 1

    def may_revive(self, count: int, rescans: int) -> bool:
        """Whether raising empty cells, which scans all samples, is worth it at this rescan."""
        often = rescans - 2 if self.D <= _COARSE else _REVIVALS
        return GUARDS.revival and count < often and _ENOUGH * self.n <= self.M

    def revive(self, empty: np.ndarray, energy: float) -> bool:
        """Raises empty cells until each touches its nearest sample, if the energy falls by it."""
        self.run.afford(self.M * (1 + empty.mean()))
        values = self.lists.values(self.h)
        best = np.full(int(empty.sum()), -np.inf, np.float32)
        for pool in self.pools:
            y = pool.targets(self.y[empty])
            for rows, x in pool.whole():
                potential = values[pool.rows][rows]
                best = np.maximum(best, otcuda.power_argmax(y, x, -potential)[0])
            self.run.scanned += int(pool.M * empty.mean())
        h = self.h.copy()
        h[empty] = np.maximum(h[empty], -best.astype(np.float64))
        before = [pool.h for pool in self.pools]
        for pool in self.pools:
            self.scan(pool, h)
        if self.energy(h) < energy:
            self.h = h
            return True
        for pool, old in zip(self.pools, before, strict=True):
            self.scan(pool, old)
        return False


def coarse_start(lister: Lister, seed: int, sequence: int | None) -> np.ndarray:
    """Heights from ever larger random parts of the targets, each extended to the next.

    The extension is the double conjugate, eq. (9): the height at which a target's plane touches the
    potential of the part from below on the samples: the first Sobol points of the key `sequence`,
    which the pools begin with again, or independent ones.
    """
    n, run = lister.n, lister.run
    order = np.random.default_rng(seed % 2**32).permutation(n)
    sizes = [n]
    while sizes[0] > 1024:
        sizes.insert(0, sizes[0] // 4)
    sizes.insert(0, max(8, sizes[0] // 4))
    h = None
    for level, (size, finer) in enumerate(itertools.pairwise(sizes)):
        nu = lister.nu[order[:size]]
        part = Lister(lister.y[order[:size]], nu / nu.sum(), lister.source, run)
        if h is None:
            h = part.guess(key(seed, 4, level))
            h = part.descend(AveragedState(h, h.copy()), 8 * size, key(seed, 5, level))
        part.h = h
        if sequence is None:
            part.add(Pool(lister.source, lister.D, key(seed, 6, level), 4 * size))
            run.samples += 4 * size
        else:
            part.add(Pool(lister.source, lister.D, sequence, 4 * size, "sobol"))
        part.fit(0.5)
        values = part.lists.values(part.h)
        y = np.ascontiguousarray(lister.y[order[:finer]])
        best = np.full(finer, -np.inf, np.float32)
        for rows, x in part.pools[0].whole():
            best = np.maximum(best, otcuda.power_argmax(y, x, -values[rows])[0])
        run.scanned += finer
        h = -best.astype(np.float64)
        if run.late():
            break
    out = np.full(n, h.min())
    out[order[: len(h)]] = h
    return out


def design_gain(D: int, design: str) -> float:
    """Independent samples that tell as much as one of the design; products are planned apart."""
    return 1 + (_SOBOL_GAIN_LOW if D <= _COARSE else _SOBOL_GAIN) / D if design == "sobol" else 1.0


def planned_samples(n: int, D: int, chi2: float, design: str) -> int:
    """Samples that should reach a goal."""
    efficiency = _PRODUCT_EFFICIENCY if design == "product" else _EFFICIENCY
    efficiency *= design_gain(D, design)
    return max(_FEWEST, int(_SAFETY * (n - 1) / (efficiency * chi2)))


def design_of(n: int, D: int, named: bool, wanted: str = "auto") -> str:
    """How samples of the pools are drawn: "iid", "product" or "sobol"."""
    if wanted == "iid" or not named:
        return "iid"
    if takes_products(n, D, named):
        return "product"
    return "sobol" if takes_sobol(D, named) else "iid"


def go_first(n: int, D: int, named: bool, goal: Goal) -> bool:
    """Whether "auto" begins with pools: they need fewer samples, but stop at limits less well."""
    if not (named and _SMALLEST <= n <= _LARGEST) or goal.max_seconds is not None:
        return False
    if D <= PLANAR and n > PLANAR_SIZE:
        return False
    plan = planned_samples(n, D, goal.chi2, design_of(n, D, named, goal.design))
    scans = _SCANS_LOW if D <= _COARSE else _SCANS
    return plan >= _LEAST_SHARE * n and scans * plan <= (goal.max_samples or math.inf)


def takes_products(n: int, D: int, named: bool) -> bool:
    """Whether samples are products: where a scan costs more than what they tell less."""
    return named and n >= _PRODUCT_SIZE and D >= _PRODUCT_D


class Pooler:
    """The whole method: start, pools that double, and what says that it is enough."""

    def __init__(self, cells: Cells, run: Run, seed: int):
        self.cells, self.run, self.seed = cells, run, seed
        named = cells.source.name in NAMED
        self.design = design_of(cells.n, cells.D, named, run.goal.design)
        self.product = self.design == "product"
        targets = to_numpy(cells.targets(NUMPY))
        self.lister = Lister(targets, cells.weights, cells.source, run)
        # An interval half as wide costs less than the samples that it saves.
        self.check = 2 * samples_to_certify(cells.n, run.goal.chi2)
        self.best: tuple[Chi2, np.ndarray] | None = None
        self.stage, self.count, self.checks = "start", 0, 0  # what is under way, pools, validations
        run.reserved = min(self.check, 0.2 * run.samples_left())
        self.plan = planned_samples(cells.n, cells.D, run.goal.chi2, self.design)
        self.given: np.ndarray | None = None  # heights to start from instead of a descent
        self.sequence = key(seed, TRAINING, 16)  # of Sobol points

    def affordable(self) -> float:
        """Samples that a limit leaves to fit on, validation set aside."""
        return self.run.samples_left() - self.run.reserved

    def start(self) -> None:
        """Heights to begin with, and the samples of the descent as the first pool."""
        lister, n = self.lister, self.cells.n
        if self.given is not None:
            lister.h = self.given
            return
        purpose = key(self.seed, TRAINING)
        burn = int(min(_BURN * n, self.plan / 3, 0.25 * self.affordable()))
        if lister.D <= _COARSE and n >= 1024 and self.affordable() > 64 * n:
            sequence = self.sequence if self.design == "sobol" else None
            lister.h = coarse_start(lister, purpose, sequence)
            burn = min(burn, 2 * n) if sequence is None else 0
        else:
            lister.h = lister.guess(key(purpose, 1))
        state = AveragedState(lister.h, lister.h.copy())
        if burn < lister.batch(self.product) or self.run.late():
            return
        self.descend(state, burn)

    def descend(self, state: AveragedState, burn: int) -> None:
        """The first descent, from wherever `state` is in it."""
        lister, seed = self.lister, key(key(self.seed, TRAINING), 2)
        save = lambda: self.save("descent", state, burn)  # noqa: E731
        lister.h = lister.descend(state, burn, seed, self.product, 0, save)
        self.reuse(state.step, lister.batch(self.product), seed)

    def reuse(self, steps: int, batch: int, seed: int) -> None:
        """Makes the samples of the descent a pool: what they tell is not lost."""
        if self.cells.source.name not in NAMED or self.run.late():
            return
        source, D = self.cells.source, self.cells.D
        design = "product" if self.product else "iid"  # what the native descent draws
        self.lister.add(Pool(source, D, seed, steps * batch, design, batch))
        if _ENOUGH * self.lister.n <= self.lister.M:
            self.fit("pool 0", _LOOSE)

    def fit(self, stage: str, tolerance: float) -> None:
        """Balances the cells on the pools there are."""
        residual = self.lister.fit(tolerance)
        self.run.report(
            stage=stage, unit=self.lister.unit, residual=residual, rescans=self.lister.rescans
        )

    def next_pool(self, count: int) -> bool:
        """Draws and fits another pool; False where a limit does not allow it."""
        lister, run = self.lister, self.run
        wanted = max(self.plan - lister.M, lister.M // 16, 256)
        affordable = self.affordable() / 1.3
        doubled = max(lister.M, 4 * lister.n, _FEWEST)
        few = lister.D <= _COARSE and 4 * lister.n <= lister.M  # rescans of small pools are no help
        last = wanted <= 1.5 * doubled or (self.design == "sobol" and few)
        M = int(min(wanted if last else doubled, affordable))
        if max(256, lister.M // 16) > M or run.late():
            return False
        # Sobol points go on where the last pool ended.
        first = sum(pool.M for pool in lister.pools if pool.design == "sobol")
        seed = self.sequence if self.design == "sobol" else key(self.seed, TRAINING, 16 + count)
        pool = Pool(self.cells.source, self.cells.D, seed, M, self.design, first=first)
        lister.add(pool)
        run.samples += pool.M
        chi2 = pool.chi2(lister.lists, lister.nu)
        measured = {} if chi2 is None else {"chi2": chi2.value, "chi2_interval": chi2.interval}
        run.report(stage="fresh pool", **measured)
        self.fit(f"pool {count}", _TOLERANCE if last else _LOOSE)
        return True

    def validate(self, count: int) -> Chi2:
        """Chi2 on independent samples that no heights have seen."""
        run = self.run
        M = int(max(2, min(self.check, run.samples_left())))
        h = self.lister.h
        # A time limit leaves a tenth of itself to say how good the heights are.
        late = -0.1 * (run.goal.max_seconds or 0.0)
        stop = lambda: run.seconds_left() <= late  # noqa: E731
        chi2 = self.cells.chi2(h, M, self.seed, VALIDATION + count, stop)
        run.scanned += chi2.samples
        run.report(stage="validation", chi2=chi2.value, chi2_interval=chi2.interval)
        return chi2

    def grow(self) -> None:
        """Pools until the plan is met or a limit is."""
        try:
            if self.stage == "start":
                self.start()
                self.save("pools")
            elif self.stage == "descent":
                self.descend(self.resumed, self.burn)
                self.save("pools")
            while self.plan - self.lister.M >= 256 and not self.run.late():  # pools are rounded
                self.count += 1
                if not self.next_pool(self.count):
                    self.run.stopped_by = self.run.stopped_by or self.run.scarcer()
                elif not self.run.late():
                    self.save("pools")
        except Late:
            pass

    def save(self, stage: str, state: AveragedState | None = None, burn: int = 0) -> None:
        """Writes where the fit stands, if a checkpoint was asked for."""
        self.stage = stage
        if self.run.checkpoint is None or self.run.stopped_by:
            return
        lister = self.lister
        arrays = {"h": lister.h} | {f"pool{k}": pool.h for k, pool in enumerate(lister.pools)}
        if state is not None:
            arrays |= {"descent": state.h, "mean": state.mean}
        if self.best is not None:
            arrays["best"] = self.best[1]
        numbers = {
            "stage": stage,
            "run": self.run.state(),
            "pools": [[p.key, p.M, p.design, p.block, p.first] for p in lister.pools],
            "unit": lister.unit,
            "rescans": lister.rescans,
            "plan": self.plan,
            "count": self.count,
            "checks": self.checks,
            "best": None if self.best is None else asdict(self.best[0]),
            "step": 0 if state is None else state.step,
            "burn": burn,
        }
        self.run.checkpoint.save(arrays, numbers)

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        """Goes back to what `save` wrote: samples and lists are made again."""
        lister = self.lister
        for k, (seed, *of_pool) in enumerate(numbers["pools"]):
            lister.h = arrays[f"pool{k}"]
            lister.add(Pool(self.cells.source, self.cells.D, seed, *of_pool))
        lister.h, lister.unit, lister.rescans = arrays["h"], numbers["unit"], numbers["rescans"]
        self.stage, self.plan = numbers["stage"], numbers["plan"]
        self.count, self.checks = numbers["count"], numbers["checks"]
        if numbers["best"] is not None:
            self.best = chi2_from_record(numbers["best"]), arrays["best"]
        if self.stage == "descent":
            self.resumed = AveragedState(arrays["descent"], arrays["mean"], numbers["step"])
            self.burn = numbers["burn"]
        self.run.go_on_from(numbers["run"])

    def solve(self) -> tuple[np.ndarray, FitResult]:
        """Heights float64 [n] and how it ended."""
        run, goal = self.run, self.run.goal.chi2
        while self.checks < 64:
            self.grow()
            self.lister.h = rare_heights(self.lister.lists, self.lister.h, self.lister.nu)
            self.checks += 1
            chi2 = self.validate(self.checks)
            stalled = self.best is not None and not chi2.value < _STALLED * self.best[0].value
            # Where only the interval reaches over the goal a little more is a little better.
            stalled &= not chi2.value <= goal or self.checks > _PATIENT
            if self.best is None or not chi2.value >= self.best[0].value:
                self.best = (chi2, self.lister.h.copy())
            if chi2.interval[1] <= goal:
                run.stopped_by = "chi2"
            elif stalled:
                run.stopped_by = run.stopped_by or "stalled"
            if run.stopped_by:
                break
            self.plan = int(self.lister.M * np.clip(1.2 * chi2.interval[1] / goal, 1.3, 2.0))
            self.save("pools")
        return self.best[1], run.result(self.best[0], self.cells.n)


def fit_pools(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    """Heights float64 [n] and how it ended."""
    pooler = Pooler(cells, run, seed)
    found = run.checkpoint.load() if run.checkpoint is not None else None
    if found is not None:
        pooler.restore(*found)
    return pooler.solve()

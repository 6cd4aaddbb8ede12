# SPDX-License-Identifier: Apache-2.0
"""Kernels with one thing broken: a barrier, wait, bound, atomic or tie rule. All must be caught.

A rule of mutation_rules.py is a pattern in one .cu file and what stands there instead; each place
is a mutant.
"""

from __future__ import annotations

import functools
import os
import re
import resource
import signal
import subprocess
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import argmax_cases
import exact
import mass_cases
import numpy as np
from emulation.calls import (
    assert_same_bits,
    assert_same_state,
    emulated_cell_mass,
    emulated_power_argmax,
    emulated_samples,
    emulated_screen,
    emulated_solve,
    emulated_step,
)
from emulation.emulator import (
    CHECKED,
    OPS,
    PLANTED,
    ROOT,
    EmulationError,
    Emulator,
    build_checked,
    build_host,
    compile_command,
    link,
    source_of,
)
from emulation.mutation_rules import RULES, SHARED

ENDLESS = 40_000_000  # accesses of one launch


def text_of(op: str) -> str:
    """The source of an op, what it shares with others written out in it."""
    text = source_of(op).read_text()
    for name in SHARED:
        shared = (ROOT / "csrc" / name).read_text().replace("#pragma once", "")
        include = f'#include "{name}"\n'
        text = text.replace(include, shared, 1).replace(include, "")
    return text


@dataclass(frozen=True)
class Mutant:
    """One place of one file, changed."""

    op: str
    begin: int
    end: int
    replacement: str

    @property
    def name(self) -> str:
        """File, line, and what stood there."""
        text = text_of(self.op)
        line = text.count("\n", 0, self.begin) + 1
        was = " ".join(text[self.begin : self.end].split())
        return f"{self.op}.cu:{line}: {was} -> {self.replacement.strip() or 'nothing'}"


def mutants() -> list[Mutant]:
    """Every place of every rule; a rule without a place is an error."""
    found = []
    for op, rules in RULES.items():
        text = text_of(op)
        for pattern, replacement in rules:
            places = list(re.finditer(pattern, text))
            if not places:
                raise ValueError(f"nothing in {op}.cu matches {pattern}")
            found += [Mutant(op, m.start(), m.end(), m.expand(replacement)) for m in places]
    return found


class Objects:
    """Mutants compiled, each while the one before it in `queue` is judged."""

    def __init__(self, queue: list[Mutant], folder: Path):
        self.queue, self.folder = queue, folder
        self._running: dict[Mutant, tuple[subprocess.Popen, Path]] = {}

    def _start(self, mutant: Mutant) -> None:
        folder = self.folder / f"{mutant.op}.{mutant.begin}.{zlib.crc32(mutant.name.encode())}"
        folder.mkdir()
        text, source, out = text_of(mutant.op), folder / f"{mutant.op}.cu", folder / "changed.o"
        source.write_text(text[: mutant.begin] + mutant.replacement + text[mutant.end :])
        command = compile_command(source, out, [*CHECKED, "-Wno-error"])
        with (folder / "said.txt").open("w") as log:
            self._running[mutant] = subprocess.Popen(command, stderr=log), out

    def take(self, mutant: Mutant) -> Path:
        """The object of one mutant, for the caller to delete."""
        if mutant not in self._running:
            self._start(mutant)
        process, out = self._running.pop(mutant)
        place = self.queue.index(mutant)
        for following in self.queue[place + 1 : place + 2]:
            if following not in self._running:
                self._start(following)
        if process.wait():
            said = (out.parent / "said.txt").read_text()
            raise RuntimeError(f"g++ could not compile {mutant.name}:\n{said[-4000:]}")
        return out

    def close(self) -> None:
        """Ends what nobody waits for."""
        for process, _ in self._running.values():
            process.kill()
            process.wait()


def build_mutant(mutant: Mutant, cache: Path, changed: Path) -> Emulator:
    """The library with one object changed; everything else comes from the cache."""
    others = [build_checked(op, cache) for op in (*OPS, *PLANTED) if op != mutant.op]
    return Emulator(link([*build_host(cache), changed, *others], changed.with_name("mutant.so")))


# --- what each op must get right ------------------------------------------------------------------


@functools.cache
def argmax_problems() -> list[tuple]:
    """(x, y, h, value, index): ties, NaN, dead cells, cut slices, several panels a block."""
    names = ["many duplicates", "not numbers", "dead behind nan", "nothing but nan", "signed zeros"]
    problems = [argmax_cases.hard_case(name) for name in names]
    for name in names:
        x, y, h = argmax_cases.hard_case(name, "f8")
        problems.append((x[:30], y, h))
    problems += [
        argmax_cases.base(shape) for shape in [(1030, 270, 19), (1030, 140, 16), (9, 300, 37)]
    ]
    return [(*problem, *exact.power_argmax(*problem)) for problem in problems]


def check_power_argmax(emulator: Emulator) -> None:
    """On one processor, so that more than 1024 samples make each block see all panels."""
    for k, (x, y, h, *want) in enumerate(argmax_problems()):
        settings = {"processors": 1, "seed": k, "most_accesses": ENDLESS}
        assert_same_bits(emulated_power_argmax(emulator, x, y, h, **settings), want)
    check_heights_adam_solve(emulator)  # counts
    check_limits(emulator)


def check_limits(emulator: Emulator) -> None:
    """The screen leaves 128 of 200 samples, one of two panels, to the tile kernel."""
    from emulation import screen_cases

    x, y, h = screen_cases.far_apart(200, 64, 20)
    x[:128, 3] = np.inf
    got, fallbacks = emulated_screen(emulator, x, y, h, processors=1, most_accesses=ENDLESS)
    assert_same_bits(got, exact.power_argmax(x, y, h))
    assert fallbacks == 128


def check_power_argmax_screen(emulator: Emulator) -> None:
    """Certain winners, uncertain ones, numbers that are none, and sums as far off as allowed."""
    from emulation import screen_cases

    wrong = len(list(screen_cases.wrong_sums()))
    for k, (x, y, h) in enumerate(screen_cases.problems()):
        want = exact.power_argmax(x, y, h)
        for mma_error in (0, 1, -1, 2, 3) if k < wrong else (0,):
            settings = {"processors": 1, "seed": k + 1, "most_accesses": ENDLESS}
            got, _ = emulated_screen(emulator, x, y, h, mma_error=mma_error, **settings)
            assert_same_bits(got, want)
    for x, y, h in screen_cases.certain():
        got, fallbacks = emulated_screen(emulator, x, y, h, processors=1, most_accesses=ENDLESS)
        assert_same_bits(got, exact.power_argmax(x, y, h))
        assert fallbacks == 0


def check_power_argmax_wgmma(emulator: Emulator) -> None:
    """Every maximum that the other kernel finds, by rings that turn over, and the winners."""
    for k, shape in enumerate([(70, 1700, 20), (129, 1700, 48), (20, 1290, 100)]):
        x, y, h = argmax_cases.base(shape)
        want, left = exact.power_argmax(x, y, h), []
        for by in ("wgmma", "mma"):
            scratch = emulator.workspace("power_argmax_screen", *(len(x), *y.shape))
            scratch.array[:] = 0
            settings = {"processors": 1, "seed": k, "most_accesses": ENDLESS}
            got, _ = emulated_screen(emulator, x, y, h, by, scratch, **settings)
            assert_same_bits(got, want)
            left.append(scratch.array)
        np.testing.assert_array_equal(*left)


def check_power_topk(emulator: Emulator) -> None:
    """Ties, NaN, dead cells, lists longer than a warp, whole panels and parts of them."""
    from emulation import topk_cases

    for k, (x, y, h, places) in enumerate(topk_cases.problems()):
        settings = {"processors": 1, "seed": k, "most_accesses": ENDLESS}
        topk_cases.check(emulator, x, y, h, places, **settings)


def check_cell_mass(emulator: Emulator) -> None:
    """Counts and sums, few cells and many, with faults among the samples."""
    for name in mass_cases.CASES:
        index, N, weights = mass_cases.case(name)
        settings = {"processors": 3, "most_accesses": ENDLESS}
        mass, *faults = emulated_cell_mass(emulator, index, N, weights, **settings)
        assert mass.tobytes() == exact.cell_mass(index, N, weights).tobytes()
        assert faults == [-1, -1]
    index, weights = np.arange(700) % 9, np.ones(700, "f4")
    index[500], weights[600] = 9, np.inf
    mass, *faults = emulated_cell_mass(emulator, index, 9, weights)
    kept = (index < 9) & np.isfinite(weights)
    assert (mass == np.bincount(index[kept], minlength=9)).all()
    assert faults == [500, 600]


def check_source_samples(emulator: Emulator) -> None:
    """Rows, and panels by way of a solve."""
    import otcuda

    part = {"seed": 1, "stream": 2, "offset": 3}
    want = otcuda.source_samples(np.empty((33, 5), "f4"), "uniform", **part)
    got = emulated_samples(emulator, 33, 5, "f4", "uniform", **part)
    assert got.tobytes() == want.tobytes()
    check_heights_adam_solve(emulator)


def check_heights_adam_step(emulator: Emulator) -> None:
    """One step of 300 cells."""
    import otcuda

    h, m, v, mass, nu = np.abs(np.random.default_rng(0).normal(size=(5, 300))).astype("f4")
    got = emulated_step(emulator, h, m, v, mass, nu, 3, lr=0.03)
    otcuda.heights_adam_step(h, m, v, mass, nu, 3, lr=0.03)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in (h, m, v)]


def check_heights_adam_solve(emulator: Emulator) -> None:
    """Steps around the centring one; 1024 cells are a whole block, 1100 are not."""
    import otcuda

    for N, D, start in [(1024, 1, 255), (1100, 3, 254), (7, 5, 0)]:
        rng = np.random.default_rng(N)
        y, nu = rng.normal(size=(N, D)).astype("f4"), rng.dirichlet(np.ones(N)).astype("f4")
        h = (rng.normal(size=N) + 1e6).astype("f4")  # coarse until it is centred
        states = [otcuda.HeightsState(h.copy(), 0 * nu, 0 * nu, start) for _ in range(3)]
        states[2].step = np.array([start])  # counted on the device
        settings = {"iterations": 3, "batch": 150, "lr": 0.1, "seed": 1}
        _, want = otcuda.heights_adam_solve(y, nu, "normal", state=states[0], **settings)
        for state in states[1:]:
            chi2 = emulated_solve(
                emulator, y, nu, state, "normal", most_accesses=ENDLESS, **settings
            )
            assert_same_state(state, states[0])
            assert chi2.tobytes() == want.tobytes()


def check_rans32(emulator: Emulator) -> None:
    """Both ways at every border, and damage by name."""
    from emulation.rans_cases import check_borders, check_names_of_damage

    check_borders(emulator, most_accesses=ENDLESS)
    check_names_of_damage(emulator)


def check_range64(emulator: Emulator) -> None:
    """Both ways at every border, strays, and damage by name."""
    from emulation.range_cases import check_borders, check_damage, check_strays

    check_borders(emulator, most_accesses=ENDLESS)
    check_strays(emulator)
    check_damage(emulator)


CHECKS: dict[str, Callable[[Emulator], None]] = {
    "power_argmax": check_power_argmax,
    "power_argmax_screen": check_power_argmax_screen,
    "power_argmax_wgmma": check_power_argmax_wgmma,
    "power_topk": check_power_topk,
    "cell_mass": check_cell_mass,
    "source_samples": check_source_samples,
    "heights_adam_step": check_heights_adam_step,
    "heights_adam_solve": check_heights_adam_solve,
    "range64": check_range64,
    "rans32": check_rans32,
    "rans32_encode": check_rans32,
}


def verdict(mutant: Mutant, cache: Path, changed: Path) -> str | None:
    """What caught it, or None: it survived. A mutant may bring down its process, so it has one."""
    emulator = build_mutant(mutant, cache, changed)
    told, tell, child = *os.pipe(), os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # whatever else bounds its loops
        try:
            os.write(tell, (_caught(mutant, emulator) or "").encode()[:4096])
        except BaseException:
            os.write(tell, b"!" + traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return f"the processor: {signal.Signals(-status).name}"
    if said.startswith("!"):
        raise RuntimeError(said[1:])
    return said or None


def _caught(mutant: Mutant, emulator: Emulator) -> str | None:
    try:
        CHECKS[mutant.op](emulator)
    except EmulationError as error:
        return f"the emulator: {error}"
    except AssertionError:
        return "other bits"
    return None

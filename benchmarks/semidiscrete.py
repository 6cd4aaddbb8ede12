# SPDX-License-Identifier: Apache-2.0
"""SemiDiscreteOT.fit beside its rivals, chi2 by CPU seconds: python benchmarks/semidiscrete.py.

Ours runs to its default goal, by its default method and the two others; the rivals get three times
the CPU seconds of the default on one thread. AE-OT's
loop is the released one (fixed points, doubled when the gradient stalls, step 0.05) on our kernels;
POT's is ot.semidiscrete with its defaults. chi2 is measured on 200 N independent samples by a seed
that no rival has seen.

`--grid` measures the default alone, on a grid of problems, with samples as it chooses them and with
independent ones: efficiency (N-1) / (M chi2) by the distinct samples that it was fitted on, and by
all, checks included; `--only TEXT` measures some of its rows, `--design iid` half of them. `--race`
gives OTT-JAX five times our CPU seconds at each step of a grid, and POT and AE-OT's loop ten times.
`--million N` is one fit of N targets in 64 dimensions to chi2 0.5. `--evenness` measures how much
less the samples in a cell vary where they are Sobol points. `--plot` draws what is stored.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from ot.semidiscrete import solve_semidiscrete

import otcuda
from otcuda._io import atomic_write
from otcuda._lists import sobol_samples
from otcuda.transport import SemiDiscreteOT
from otcuda.transport.pools import design_of

CASES = [
    (1024, 2, "normal", "normal"),
    (1024, 2, "clusters", "uniform"),
    (1024, 16, "normal", "normal"),
    (1024, 64, "clusters", "uniform"),
    (4096, 16, "normal", "normal"),
]
PICTURE = Path(__file__).parent.parent / "docs" / "img" / "semidiscrete.png"
METHODS = {"otcuda": "auto", "its pools": "pools", "its adam": "adam"}
SHARE = 3  # CPU seconds of a rival, as a multiple of ours


def targets(kind: str, N: int, D: int) -> np.ndarray:
    """Normal, in 20 clusters of uneven size and width, or on a curled sheet."""
    rng = np.random.default_rng(0)
    if kind == "normal":
        return rng.standard_normal((N, D)).astype(np.float32)
    if kind == "manifold":  # two coordinates, bent by sines of them in all directions
        plane = rng.random((N, 2)) * 2 * np.pi
        waves = rng.integers(-2, 3, (2, D)), rng.random(D) * 2 * np.pi
        return np.sin(plane @ waves[0] + waves[1]).astype(np.float32)
    mode = rng.choice(20, N, p=rng.dirichlet(np.ones(20)))
    centre, width = 2 * rng.standard_normal((20, D)), 0.05 + 0.5 * rng.random(20)
    return (centre[mode] + width[mode, None] * rng.standard_normal((N, D))).astype(np.float32)


def published_loop(y: np.ndarray, source: str, seconds: float) -> tuple[np.ndarray, int]:
    """AE-OT's loop as released: Adam without bias correction on points that stay the same."""
    N, D = y.shape
    nu = np.full(N, 1 / N, np.float32)
    state = otcuda.HeightsState(*np.zeros((3, N), np.float32))
    M, best, bad, start = 20_000, np.inf, 0, time.process_time()
    x = otcuda.source_samples(np.empty((M, D), np.float32), source, seed=1)
    while time.process_time() - start < seconds:
        mass = otcuda.cell_mass(otcuda.power_argmax(x, y, state.h)[1], N) / np.float32(M)
        otcuda.heights_adam_step(state.h, state.m, state.v, mass.astype(np.float32), nu, 0, lr=0.05)
        norm = float(np.linalg.norm(mass - nu))
        best, bad = (norm, 0) if norm <= best else (best, bad + 1)
        if bad > 30:
            M, best, bad = 2 * M, np.inf, 0
            x = otcuda.source_samples(np.empty((M, D), np.float32), source, seed=1)
    return state.h, M


def pot_solver(y: np.ndarray, source: str, seconds: float) -> tuple[np.ndarray, int]:
    """POT with its defaults: as many iterations as the time allows."""
    generator = torch.Generator().manual_seed(1)

    def sampler(n: int) -> torch.Tensor:
        draw = torch.randn if source == "normal" else torch.rand
        return draw(n, y.shape[1], generator=generator)

    def solve(iterations: int) -> torch.Tensor:
        return solve_semidiscrete(torch.from_numpy(y), sampler, max_iter=iterations, batch_size=256)

    start = time.process_time()
    solve(20)
    iterations = max(20, int(20 * seconds / (time.process_time() - start)))
    g = solve(iterations).numpy()
    return (g - (y.astype(np.float64) ** 2).sum(1)) / 2, 256 * iterations


RIVALS = {"AE-OT's loop": published_loop, "POT": pot_solver}


def measured(judge: SemiDiscreteOT, h: np.ndarray, samples: int, seconds: float) -> dict[str, Any]:
    judge.heights = h
    chi2 = judge.chi2((200 if judge.N < 16384 else 40) * judge.N, seed=987_654).value
    return {"seconds": seconds, "samples_per_target": samples / judge.N, "chi2": chi2}


def row(N: int, D: int, kind: str, source: str, seeds: int) -> dict[str, Any]:
    y = targets(kind, N, D)
    ot, judge = SemiDiscreteOT(y, source=source), SemiDiscreteOT(y, source=source)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        for name, method in METHODS.items():  # interleaved
            start = time.process_time()
            result = ot.fit(method, seed=seed)
            seconds = time.process_time() - start
            runs[name].append(measured(judge, ot.heights, result.samples, seconds))
    found = {}
    for name, each in runs.items():
        median = {key: statistics.median(run[key] for run in each) for key in each[0]}
        if median["samples_per_target"] > 0:  # none are needed in the plane
            median["efficiency"] = (N - 1) / (N * median["samples_per_target"] * median["chi2"])
        found[name] = {**median, "runs": each}
    ours = found["otcuda"]
    for name, rival in RIVALS.items():
        start = time.process_time()
        h, samples = rival(y, source, SHARE * ours["seconds"])
        found[name] = measured(judge, h, samples, time.process_time() - start)
    return {"case": f"N={N} D={D} {kind} to {source}", "rivals": found}


# --- the grid -------------------------------------------------------------------------------------

GRID = [
    (N, D, kind, source, goal)
    for N, goal in ((1024, 0.02), (4096, 0.02), (16384, 0.05), (65536, 0.05))
    for D in (2, 4, 16, 64)
    for kind, source in (("normal", "normal"), ("clusters", "uniform"))
]
GRID += [
    (4096, D, "manifold", source, 0.02) for D in (4, 16, 64) for source in ("normal", "uniform")
]
GRID += [(2048, 16, "uneven", "normal", 0.05)]  # clusters, weights over six orders of magnitude
JUDGED = ((4096, 100), (16384, 40))  # up to so many targets by so many samples each, else by 10


def weights(kind: str, N: int) -> np.ndarray | None:
    """None, or log-normal ones whose largest is a million times the smallest."""
    if kind != "uneven":
        return None
    logs = np.random.default_rng(1).standard_normal(N)
    logs *= np.log(1e6) / (logs.max() - logs.min())
    return np.exp(logs) / np.exp(logs).sum()


def checked_samples(history: tuple[dict[str, Any], ...]) -> int:
    """Samples that only measured: what a validation scanned since the record before it."""
    pairs = zip(({"scanned": 0}, *history), history, strict=False)
    return sum(b["scanned"] - a["scanned"] for a, b in pairs if b["stage"] == "validation")


def spread(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    values = [run[name] for run in runs]
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def grid_row(case: tuple, seeds: int, designs: tuple[str, ...]) -> dict[str, Any]:
    N, D, kind, source, goal = case
    y = targets("clusters" if kind == "uneven" else kind, N, D)
    ot = SemiDiscreteOT(y, weights(kind, N), source)
    found: dict[str, Any] = {"case": f"N={N} D={D} {kind} to {source}", "goal": goal}
    for design in designs:
        if design == "iid" and design_of(N, D, True) == "iid" and "auto" in found:
            found["iid"] = found["auto"]  # the very same fit
            continue
        runs = []
        for seed in range(seeds):
            start = time.process_time()
            result = ot.fit(chi2=goal, seed=seed, design=design)
            seconds = time.process_time() - start
            each = next((each for most, each in JUDGED if most >= N), 10)
            chi2 = ot.chi2(each * N, seed=987_654).value
            told = result.samples + checked_samples(result.history)
            run = {
                "seconds": seconds,
                "chi2": chi2,
                "samples_per_target": result.samples / N,
                "scanned_per_target": result.scanned / N,
                "converged": float(result.converged),
            }
            if result.samples:  # none are needed in the plane
                run["efficiency"] = (N - 1) / (result.samples * chi2)
                run["efficiency_with_checks"] = (N - 1) / (told * chi2)
            runs.append(run)
        found[design] = {name: spread(runs, name) for name in runs[0]}
        line = {name: value["median"] for name, value in found[design].items()}
        print(found["case"], design, " ".join(f"{k} {v:.4g}" for k, v in line.items()), flush=True)
    return found


# --- Sobol points ---------------------------------------------------------------------------------

EVEN = [(N, 4, kind, "normal") for N, kind in ((1024, "normal"), (16384, "normal"))]
EVEN += [(4096, 4, "clusters", "normal"), (4096, 4, "manifold", "normal")]
EVEN += [(4096, 16, kind, "normal") for kind in ("normal", "clusters", "manifold")]
PER_CELL = (4, 8, 16, 32)


def evenness_row(case: tuple) -> dict[str, Any]:
    """Variance of the samples in a cell near the solution, of Sobol points over independent ones.

    What a fit on one such set can gain at most: over four scrambles, by points a cell.
    """
    N, D, kind, source = case
    ot = SemiDiscreteOT(targets(kind, N, D), source=source)
    ot.fit(chi2=0.05)

    def counts(M: int, seed: int) -> np.ndarray:
        found = np.zeros(N)
        for offset in range(0, M, 1 << 15):
            x = np.empty((min(1 << 15, M - offset), D), np.float32)
            sobol_samples(x, source, seed=seed, offset=offset)
            found += np.bincount(ot.assign(x), minlength=N)
        return found

    found = {}
    for each in PER_CELL:
        draws = np.array([counts(each * N, seed) for seed in range(4)])
        mass = draws.mean(0) / (each * N)
        found[str(each)] = float(draws.var(0, ddof=1).sum() / (each * N * mass * (1 - mass)).sum())
    print(f"N={N} D={D} {kind} to {source}", found, flush=True)
    return {"case": f"N={N} D={D} {kind} to {source}", "variance": found}


# --- the race -------------------------------------------------------------------------------------

RACE = [(4096, 16, "normal", "normal"), (4096, 64, "clusters", "uniform")]
RACE += [(16384, 16, "normal", "normal"), (16384, 64, "clusters", "uniform")]
RACE_GOALS = (0.05, 0.02)
OTT_STEPS = (0.1, 1.0, 3.0)  # times sqrt(N)


def ott_solver(
    y: np.ndarray, source: str, seconds: float, step: float
) -> tuple[np.ndarray, int, float]:
    """OTT-JAX, batch 256, cosine decay; compile time is not counted."""
    import jax
    import jax.numpy as jnp
    import optax
    from ott.geometry import semidiscrete_pointcloud
    from ott.problems.linear import semidiscrete_linear_problem
    from ott.solvers.linear import semidiscrete

    sampler = jax.random.normal if source == "normal" else jax.random.uniform
    cloud = semidiscrete_pointcloud.SemidiscretePointCloud(sampler, jnp.asarray(y), epsilon=0.0)
    problem = semidiscrete_linear_problem.SemidiscreteLinearProblem(cloud)

    def run(iterations: int) -> tuple[np.ndarray, float]:
        rate = optax.cosine_decay_schedule(step * len(y) ** 0.5, iterations)
        solver = semidiscrete.SemidiscreteSolver(
            num_iterations=iterations, batch_size=256, optimizer=optax.sgd(rate),
            error_eval_every=iterations, error_num_repeats=1, threshold=0.0,
        )  # fmt: skip
        call = jax.jit(lambda key: solver(key, problem).g).lower(jax.random.key(1)).compile()
        start = time.process_time()
        g = np.asarray(call(jax.random.key(1)))
        return g, time.process_time() - start

    probe = run(40)[1] / 40
    iterations = max(40, int(seconds / probe))
    g, taken = run(iterations)
    return (g - (y.astype(np.float64) ** 2).sum(1)) / 2, 256 * iterations, taken


def race_row(case: tuple, goal: float, steps: tuple[float, ...], others: bool) -> dict[str, Any]:
    """Ours to the goal; OTT-JAX for five times as long at each step, the others for ten times."""
    N, D, kind, source = case
    y = targets(kind, N, D)
    ot, judge = SemiDiscreteOT(y, source=source), SemiDiscreteOT(y, source=source)
    start = time.process_time()
    result = ot.fit(chi2=goal)
    ours = time.process_time() - start
    found = {"otcuda": measured(judge, ot.heights, result.samples, ours)}
    for step in steps:
        h, samples, taken = ott_solver(y, source, 5 * ours, step)
        found[f"OTT-JAX, step {step:g} sqrt N"] = measured(judge, h, samples, taken)
    for name, rival in RIVALS.items() if others else ():
        start = time.process_time()
        h, samples = rival(y, source, 10 * ours)
        taken = time.process_time() - start
        found[name] = measured(judge, h, samples, taken)
    print(f"N={N} D={D} {kind} to {source}, goal {goal}")
    for name, each in found.items():
        print(" ", name, " ".join(f"{k} {v:.4g}" for k, v in each.items()), flush=True)
    return {"case": f"N={N} D={D} {kind} to {source}", "goal": goal, "rivals": found}


def race(options: argparse.Namespace) -> None:
    """Both goals; from 16,384 targets on the second one with OTT-JAX at its best step alone."""
    rows = {(row["case"], row["goal"]): row for row in stored("semidiscrete_race", options)}
    for case, goal in itertools.product(RACE, RACE_GOALS):
        N, D, kind, source = case
        name = f"N={N} D={D} {kind} to {source}"
        if options.only not in f"{name} goal {goal}":
            continue
        steps, others = OTT_STEPS, True
        if N >= 16384 and goal < RACE_GOALS[0]:
            rivals = rows[name, RACE_GOALS[0]]["rivals"]
            reached = [rivals[f"OTT-JAX, step {step:g} sqrt N"]["chi2"] for step in steps]
            steps, others = (steps[reached.index(min(reached))],), False
        rows[name, goal] = race_row(case, goal, steps, others)
        rows[name, goal]["commit"] = harness.environment([])["commit"]
        write("semidiscrete_race", options.machine, list(rows.values()))


# --- a million targets ----------------------------------------------------------------------------


def million_row(N: int, D: int, goal: float) -> dict[str, Any]:
    """One fit with a checkpoint; memory beside the array that the caller holds."""
    SemiDiscreteOT(targets("normal", 300, 3)).fit("asgd", chi2=0.2)
    y = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of what came before does not count
    before, start = harness.resident("VmHWM"), time.process_time()
    ot = SemiDiscreteOT(y)
    with tempfile.TemporaryDirectory() as folder:
        result = ot.fit(chi2=goal, checkpoint=Path(folder, "fit"), callback=print)
    return {
        "case": f"N={N} D={D} normal to normal",
        "goal": goal,
        "cpu_seconds": time.process_time() - start,
        "peak_bytes": harness.resident("VmHWM") - before,
        "estimated_bytes": ot.estimate(goal).bytes,
        **{name: value for name, value in result.as_dict().items() if name != "history"},
    }


# --- the picture ----------------------------------------------------------------------------------


def draw(machine: str) -> None:
    """Chi2 by CPU seconds of the race, and by samples of the grid; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    kept = [
        json.loads((harness.RESULTS / f"semidiscrete_{name}.{machine}.json").read_text())["rows"]
        for name in ("race", "grid")
    ]
    problems = list(dict.fromkeys(row["case"] for row in kept[0]))
    figure, axes = pyplot.subplots(1, len(problems) + 1, figsize=(4 * len(problems) + 4, 3.6))
    for panel, problem in zip(axes, problems, strict=False):
        found: dict[str, list[tuple[float, float]]] = {}
        for row in (row for row in kept[0] if row["case"] == problem):
            theirs = {name: each for name, each in row["rivals"].items() if "OTT" in name}
            best = min(theirs, key=lambda name: theirs[name]["chi2"])
            for name, each in row["rivals"].items():
                if name in theirs and name != best:
                    continue
                label = "OTT-JAX, best of three steps" if name == best else name
                found.setdefault(label, []).append((each["seconds"], each["chi2"]))
        for name, points in found.items():
            panel.plot(*zip(*points, strict=True), "o-", label=name, ms=4)
        panel.set(xlabel="CPU seconds", title=problem)
    for design, label in (("iid", "independent samples"), ("auto", "default")):
        runs = [row[design] for row in kept[1] if design in row and "D=2 " not in row["case"]]
        points = [(run["samples_per_target"]["median"], run["chi2"]["median"]) for run in runs]
        axes[-1].plot(*zip(*points, strict=True), "o", label=label, ms=4)
    samples = np.array([10.0, 100.0])
    axes[-1].plot(samples, 1 / samples, "k--", lw=1, label="floor (6)")
    axes[-1].set(xlabel="samples a target", title="the grid")
    for panel in axes:
        panel.set(xscale="log", yscale="log", ylabel="chi2")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(ticker.NullFormatter())
        panel.legend(fontsize=7)
        panel.title.set_fontsize(9)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=80, pil_kwargs={"optimize": True})
    pyplot.close(figure)


def grid(options: argparse.Namespace) -> None:
    """Rows of the grid whose case holds the text, put in the place of the stored ones."""
    rows = {row["case"]: row for row in stored("semidiscrete_grid", options)}
    for case in GRID:
        N, D, kind, source, _ = case
        if options.only in f"N={N} D={D} {kind} to {source}":
            designs = (options.design,) if options.design else ("auto", "iid")
            row = grid_row(case, options.seeds if N < 65536 else 1, designs)
            measured = f"commit of {options.design}" if options.design else "commit"
            row[measured] = harness.environment([])["commit"]
            rows[row["case"]] = rows.get(row["case"], {}) | row
            write("semidiscrete_grid", options.machine, list(rows.values()))


def stored(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of an earlier run where only some are to be measured."""
    path = harness.RESULTS / f"{name}.{options.machine}.json"
    return json.loads(path.read_text())["rows"] if options.only and path.exists() else []


def write(name: str, machine: str, rows: list[dict[str, Any]]) -> None:
    result = {"op": name, "clock": "cpu", "threads": 1}
    if name == "semidiscrete_grid":
        result["load"] = (
            "measured beside other jobs: CPU seconds are upper ends, the rest is not touched"
        )
    packages = ["otcuda", "torch", "numpy", "POT", "ott-jax"]
    result |= harness.environment(packages) | {"rows": rows}
    harness.RESULTS.mkdir(exist_ok=True)
    path = harness.RESULTS / f"{name}.{machine}.json"
    atomic_write(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description="benchmark of SemiDiscreteOT.fit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--machine", default=platform.machine(), help="part of the result's name")
    parser.add_argument("--grid", action="store_true", help="the default alone, on many problems")
    parser.add_argument("--only", default="", help="rows of grid or race whose name holds this")
    parser.add_argument("--design", default="", help="of the grid: auto or iid; both if not said")
    parser.add_argument("--evenness", action="store_true", help="variance of Sobol points in cells")
    parser.add_argument("--million", type=int, default=0, help="targets of one fit, D = 64")
    parser.add_argument(
        "--plot", action="store_true", help="docs/img/semidiscrete.png of stored rows"
    )
    parser.add_argument("--race", action="store_true", help="time to a goal, with OTT-JAX")
    options = parser.parse_args()
    otcuda.set_num_threads(1)
    torch.set_num_threads(1)
    rows = []
    if options.grid:
        grid(options)
        return
    if options.plot:
        draw(options.machine)
        return
    if options.evenness:
        write("semidiscrete_sobol", options.machine, [evenness_row(case) for case in EVEN])
        return
    if options.million:
        write("semidiscrete_million", options.machine, [million_row(options.million, 64, 0.5)])
        return
    if options.race:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # XLA asks nobody else
        race(options)
        return
    for case in CASES:
        rows.append(row(*case, options.seeds))
        print(rows[-1]["case"])
        for name, found in rows[-1]["rivals"].items():
            print(
                f"  {name:13s} chi2 {found['chi2']:8.4f} in {found['seconds']:6.2f} CPU s, "
                f"{found['samples_per_target']:7.1f} samples a target",
                flush=True,
            )
    write("semidiscrete", options.machine, rows)


if __name__ == "__main__":
    main()

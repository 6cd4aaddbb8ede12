# SPDX-License-Identifier: Apache-2.0
"""Cost of a distributed step: a formula, checked here, and where it leads.

Two Gloo ranks of one thread each measure what a pair, a number drawn, a target and a byte cost;
the formula of docs/transport.md, section 8, then has to say what whole steps of other sizes take.
With the constants of cards it is a simulation, and no measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np

import otcuda
from otcuda._io import atomic_write
from otcuda._lists import AveragedState
from otcuda.transport import SemiDiscreteOT, asgd
from otcuda.transport.distributed import TeamRun, _TeamRounds
from otcuda.transport.fitting import Goal
from otcuda.transport.ranks import Ranks

CHECKED = [(20_000, 32), (60_000, 24)]  # N, D; the constants come from others
SIMULATED = [  # N, D, goal, cards
    (10**6, 64, 0.5, 1),
    (10**6, 64, 0.5, 8),
    (10**7, 64, 0.5, 8),
    (10**7, 64, 0.5, 64),
    (10**8, 64, 1.0, 64),
    (10**8, 64, 1.0, 1024),
    (10**9, 64, 1.0, 1024),
]
CARD_MEMORY = 80e9


@dataclass(frozen=True)
class Costs:
    """Seconds that things take on one rank.

    Attributes:
        pair, coordinate: of a sample with a target: pair + coordinate * D.
        number: of a random number.
        target: of a height's update, in float64 on the host.
        latency: of a reduction.
        byte: that a rank sends.
    """

    pair: float
    coordinate: float
    number: float
    target: float
    latency: float
    byte: float


# float32 argmax at 300 TFLOP/s (docs/cuda.md, predicted), NVLink and InfiniBand at 50 GB/s a card.
CARD = Costs(4 / 3e14, 2 / 3e14, 1e-11, 2e-9, 3e-5, 1 / 5e10)


def step_seconds(N: int, D: int, batch: int, P: int, shard: str, costs: Costs) -> dict[str, float]:
    """Seconds of a step by part, docs/transport.md, section 8."""
    pairs = batch * N / P
    drawn = batch * D / (P if shard == "samples" else 1)
    sent = 8 * (N if shard == "samples" else batch)
    ring = 2 * (P - 1) / P  # what a rank sends in an all-reduce, of its size
    return {
        "scan": pairs * (costs.pair + costs.coordinate * D),
        "draw": drawn * costs.number,
        "reduce": (math.ceil(math.log2(P)) * costs.latency + ring * sent * costs.byte) * (P > 1),
        "update": N * costs.target,
    }


def least(call: Callable[[], Any], clock: Callable[[], float], repeats: int = 9) -> float:
    """Seconds of the fastest of some calls: others work on this machine too."""
    found = []
    for _ in range(repeats):
        start = clock()
        call()
        found.append(clock() - start)
    return min(found)


def calibrate(ranks: Ranks) -> Costs:
    """What things cost here."""
    scans = []
    for D in (16, 64):
        x, y = np.random.default_rng(0).standard_normal((2, 8192, D)).astype(np.float32)
        h = np.zeros(len(y), np.float32)
        scans.append(least(lambda x=x, y=y, h=h: otcuda.power_argmax(x, y, h), time.process_time))
    coordinate = (scans[1] - scans[0]) / (48 * 8192**2)
    pair = scans[0] / 8192**2 - 16 * coordinate
    out = np.empty((1 << 14, 64), np.float32)
    number = least(lambda: otcuda.source_samples(out, seed=1), time.process_time) / out.size
    N = 1 << 17
    state, nu, counts = AveragedState(*np.zeros((2, N))), np.full(N, 1 / N), np.ones(N, np.int64)

    def update() -> None:
        np.bincount(counts, minlength=N)
        move = 0.1 * (counts / N - nu) / nu
        state.h -= move.clip(-1, 1)
        state.mean += 0.1 * (state.h - state.mean)

    target = least(update, time.process_time) / N
    small, large = np.zeros(1, np.int64), np.zeros(1 << 20, np.int64)
    latency = least(lambda: ranks.sum(small), time.monotonic, 30)
    byte = (least(lambda: ranks.sum(large), time.monotonic, 10) - latency) / large.nbytes
    return Costs(pair, coordinate, number, target, latency, byte)


def measured_step(N: int, D: int, shard: str, ranks: Ranks) -> dict[str, float]:
    """CPU seconds of a step as `fit_distributed` makes it, and wall time of its reduction.

    Wall time of a whole step would tell how busy the machine is with other things.
    """
    y = np.random.default_rng(1).standard_normal((N, D)).astype(np.float32)
    cells = SemiDiscreteOT(y)._problem.sorted_cells()
    rounds = _TeamRounds(cells, TeamRun(Goal(), None, ranks), 0, shard, None)
    state = AveragedState(*np.zeros((2, N)))
    descent, one = rounds.descent, np.ones(1)
    descent.unit = 0.1

    def step() -> None:
        descent._steps(state, 1e-3 * one, 0.1 * one, 1, False)

    sent = np.zeros(N if shard == "samples" else descent.batch(False), np.int64)
    return {
        "cpu": least(step, time.process_time),
        "reduce": least(lambda: ranks.sum(sent), time.monotonic, 20) if ranks.size > 1 else 0.0,
    }


def work(rank: int, size: int, folder: Path) -> None:
    """What one rank does; rank 0 writes what it found."""
    import torch.distributed as dist

    otcuda.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    groups = {1: dist.new_group([0]), size: None}
    costs, rows = calibrate(Ranks()), []
    for N, D in CHECKED:
        for P, group in groups.items():
            if rank >= P:
                continue
            for shard in ("samples", "targets"):
                batch = max(256, N // 8)
                found = measured_step(N, D, shard, Ranks(group))
                predicted = step_seconds(N, D, batch, P, shard, costs)
                rows.append({"N": N, "D": D, "ranks": P, "shard": shard, "batch": batch})
                rows[-1] |= {"measured": found, "predicted": predicted}
                computed = sum(predicted.values()) - predicted["reduce"]
                rows[-1]["cpu_ratio"] = found["cpu"] / computed
                if P > 1:
                    rows[-1]["reduce_ratio"] = found["reduce"] / predicted["reduce"]
        dist.barrier()
    if rank == 0:
        found = {"costs": asdict(costs), "checked": rows}
        (folder / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def simulated(N: int, D: int, chi2: float, P: int) -> dict[str, Any]:
    """A whole fit on cards: steps, seconds, and where they go."""
    shard = "samples" if 4.0 * N * D <= CARD_MEMORY / 2 else "targets"
    batch = max(256, N // 8)
    samples = asgd.planned_samples(N, D, chi2, product=False)
    check = max(4096, asgd.check_width(N, D, False) * math.sqrt(2 * N) / chi2)
    step = step_seconds(N, D, batch, P, shard, CARD)
    steps = (samples + check) / batch
    bytes_ = 4.0 * N * D / (P if shard == "targets" else 1)
    return {
        "N": N, "D": D, "chi2": chi2, "cards": P, "shard": shard,
        "samples_per_target": samples / N, "seconds": steps * sum(step.values()),
        "gigabytes_of_targets_a_card": bytes_ / 1e9, "gigabytes_a_host_process": 40 * N / 1e9,
        "shares": {name: part / sum(step.values()) for name, part in step.items()},
    }  # fmt: skip


def check_here() -> dict[str, Any]:
    """Costs and checked steps of two ranks on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--folder", folder, "--rank"]
        workers = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
        if any([worker.wait() for worker in workers]):
            raise RuntimeError("a rank failed; its words are above")
        return json.loads((Path(folder) / "found.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of distributed steps")
    parser.add_argument("--machine", default=platform.machine(), help="part of the result's name")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        work(options.rank, 2, options.folder)
        return
    found = check_here()
    for row in found["checked"]:
        print(
            f"N={row['N']} D={row['D']} {row['shard']:8s} {row['ranks']} ranks: "
            f"{1e3 * row['measured']['cpu']:.1f} ms of CPU, {row['cpu_ratio']:.2f} of the formula's"
            + (f", reduction {row['reduce_ratio']:.2f}" if row["ranks"] > 1 else ""),
            flush=True,
        )
    rows = [simulated(*case) for case in SIMULATED]
    for row in rows:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in row["shares"].items())
        print(
            f"N={row['N']:.0e} to chi2 {row['chi2']} on {row['cards']} cards, {row['shard']}: "
            f"{row['seconds']:.3g} s ({shares})"
        )
    result = {"op": "distributed", "card": asdict(CARD), **found, "simulated": rows}
    result |= harness.environment(["otcuda", "torch", "numpy"])
    harness.RESULTS.mkdir(exist_ok=True)
    path = harness.RESULTS / f"distributed.{options.machine}.json"
    atomic_write(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

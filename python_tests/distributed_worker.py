# SPDX-License-Identifier: Apache-2.0
"""One of three ranks of test_distributed.py: RANK FOLDER; leaves its findings in FOLDER.

The three start once; groups of one, two and three of them stand for world sizes.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import otcuda
from otcuda.errors import RankError
from otcuda.transport import SemiDiscreteOT, fit_distributed

WORLD = 3


def targets(N, D, seed=0):
    return np.random.default_rng(seed).standard_normal((N, D)).astype(np.float32)


PROBLEMS = {  # name: (targets, source, goal)
    "plain": (targets(300, 3), "normal", 0.1),
    "unequal": (targets(77, 5, seed=1), "uniform", 0.1),
    "product": (targets(4096, 48, seed=2), "normal", 0.9),
}


def problem(name):
    y, source, chi2 = PROBLEMS[name]
    nu = None
    if name == "unequal":
        nu = np.linspace(0.1, 1, len(y))
        nu /= nu.sum()
    return SemiDiscreteOT(y, nu, source), chi2


def heights(name, group, **options):
    ot, chi2 = problem(name)
    result = fit_distributed(ot, group, chi2=chi2, **options)
    return np.append(ot.heights, [result.chi2, result.samples, result.scanned])


def stops_after(count):
    seen = []

    def callback(record):
        seen.append(record)
        return len(seen) < count

    return callback


def agreements(rank, groups, found):
    for name in PROBLEMS:
        for size, group in groups.items():
            for shard in ("samples", "targets"):
                if rank < size and not (name == "product" and size == 3):
                    found[f"{name} {shard} {size}"] = heights(name, group, shard=shard)


def moves(rank, groups, folder, found):
    """A fit of two ranks that was stopped goes on with three, by the other shard."""
    path = folder / "moved"
    ot, chi2 = problem("plain")
    if rank < 2:
        callback = stops_after(5) if rank == 1 else None  # one rank's word stops both
        result = fit_distributed(ot, groups[2], chi2=chi2, checkpoint=path, callback=callback)
        found["stopped"] = np.array([result.stopped_by == "callback"])
    dist.barrier()
    found["moved"] = heights("plain", groups[3], shard="targets", checkpoint=path)


def hangs(rank, found):
    """Rank 1 does not answer: rank 0 says so after the timeout."""
    group = dist.new_group([0, 1], timeout=datetime.timedelta(seconds=1))
    if rank == 0:
        began = time.monotonic()
        try:
            heights("plain", group)
        except RankError as error:
            found["hang"] = np.array([time.monotonic() - began])
            (found["folder"] / "hang.txt").write_text(str(error))


def differs(rank, groups, found):
    ot, _ = problem("plain")
    if rank == 1:
        ot = SemiDiscreteOT(PROBLEMS["plain"][0] + 1)
    if rank < 2:
        try:
            fit_distributed(ot, groups[2])
        except RankError as error:
            (found["folder"] / f"differs{rank}.txt").write_text(str(error))


def dies(rank, folder, found):
    """The last rank is gone in the middle of a stage: the others say so, the file stays."""
    ot, chi2 = problem("plain")
    count = [0]

    def callback(_record):
        count[0] += 1
        if rank == WORLD - 1 and count[0] == 8:
            os._exit(9)

    try:
        fit_distributed(ot, chi2=chi2, checkpoint=folder / "died", callback=callback)
    except RankError as error:
        (folder / f"died{rank}.txt").write_text(str(error))
    found["records"] = np.array(count)


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    otcuda.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    groups = {size: dist.new_group(list(range(size))) for size in (1, 2, 3)}
    found = {"folder": folder}
    agreements(rank, groups, found)
    moves(rank, groups, folder, found)
    differs(rank, groups, found)
    hangs(rank, found)
    dist.barrier()
    dies(rank, folder, found)
    arrays = {name: array for name, array in found.items() if name != "folder"}
    np.savez(folder / f"rank{rank}.npz", **arrays)
    os._exit(0)  # the group is broken on purpose: no farewell


if __name__ == "__main__":
    main()

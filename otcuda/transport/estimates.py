# SPDX-License-Identifier: Apache-2.0
"""What a fit will take, before it starts: bytes of memory, samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from otcuda._lists import HALVES
from otcuda._ops import native
from otcuda.transport import asgd, designs, planar, pools
from otcuda.transport.fitting import Goal

_LIST_PARTS = 8  # of csrc/common/list_newton.h: each has sums of its own over the cells
_SLACK, _BLOCKS = 1.03, 4  # of pools: what is rounded up, blocks of samples; measured
_SCRATCH = 64  # bytes a sample of values, gaps and copies while heights move; measured
_COPIES = 3  # of the targets: as given, sorted, centred
_VECTORS = 12  # over the cells while heights are guessed; measured
_INTEGERS, _LEAST_D = 32, 16  # bytes a target beside its integers; dimensions from which they pay
_ACTIVE = 5  # weights of the Hessian that a sample keeps; measured 3 to 6


def free_memory() -> float:
    """Bytes that this process may still take: of the machine and of `set_memory_limit`."""
    limit = native.memory_limit()
    found = limit - native.memory_in_use() if limit else math.inf
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return min(found, 1024 * int(kilobytes))
    except (OSError, StopIteration, ValueError, IndexError):  # another system
        return found


@dataclass(frozen=True)
class Estimate:
    """What a fit takes.

    Attributes:
        bytes: memory at its peak, targets included, the interpreter and its libraries not.
        samples: that the heights will be fitted on if all goes as planned.
        product: whether they are products of halves.
        method: "pools", "planar" where no samples are needed, or "asgd" for all others.
    """

    bytes: int
    samples: int
    product: bool
    method: str = "asgd"


def pools_fit(N: int, D: int, named: bool, goal: Goal, free: float) -> bool:
    """Whether so many bytes are enough for the pools."""
    return _of_pools(N, D, named, goal).bytes <= free


def estimate(
    N: int, D: int, named: bool, goal: Goal, method: str = "auto", free: float = math.inf
) -> Estimate:
    """Memory and samples of a fit.

    Args:
        N: targets.
        D: dimension.
        named: whether the source is a named one; the samples of others are kept.
        goal: of the fit.
        method: as of `fit`.
        free: bytes that are there: "auto" goes to the pools only where they fit.
    """
    if method == "auto" and planar.takes_planar(N, D, named):
        bytes_ = 4 * N * D * _COPIES + planar.planar_bytes(N)
        return Estimate(bytes_, 0, False, "planar")
    if method == "auto" and pools.go_first(N, D, named, goal):
        method = "pools" if pools_fit(N, D, named, goal, free) else "asgd"
    if method == "pools":
        return _of_pools(N, D, named, goal)
    product = asgd.products_pay(N, D, named and goal.design != "iid")
    M, max_samples = asgd.planned_samples(N, D, goal.chi2, product), goal.max_samples
    batch = max(256, N // 8) * (4 * D // (HALVES if product else 1) + 24)
    guess = 20 * 1024 * D + 32 * min(N * D, 1 << 17)  # samples and blocks
    bytes_ = 4 * N * D * _COPIES + 8 * N * _VECTORS + max(batch, guess)
    return Estimate(bytes_, int(M if max_samples is None else min(M, max_samples)), product)


def _of_pools(N: int, D: int, named: bool, goal: Goal) -> Estimate:
    design = pools.design_of(N, D, named, goal.design)
    product, K = design == "product", min(pools._K, N)
    M = pools.planned_samples(N, D, goal.chi2, design)
    M = M if goal.max_samples is None else min(M, goal.max_samples)
    lists = M * (8 * K + 4)
    newton = M * (8 * _ACTIVE + 8 + _SCRATCH) + N * (16 * 8 + 8 * _LIST_PARTS)
    # The last pool, half of all, is joined to the others, which are copied for that.
    growing = lists + lists // 2
    targets = 4 * N * D * (4 if product else 3)
    integers = N * (D + _INTEGERS) if D >= _LEAST_D and not product else 0  # lists, by the screen
    kept = integers if named else integers + 4 * M * D
    blocks = _BLOCKS * designs._BLOCK * 4 * D
    bytes_ = int(_SLACK * (max(growing, lists + newton) + targets + kept)) + blocks
    return Estimate(bytes_, M, product, "pools")

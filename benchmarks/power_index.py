# SPDX-License-Identifier: Apache-2.0
"""The tree of PowerIndex beside the blocked loop on one thread: python benchmarks/power_index.py.

Normal samples and targets, or both near a surface of 6 dimensions in 64; heights of the nearest
neighbour. `auto` has its verdict, `screen` is the integer screen where the index has one. `build`
and `heights` are CPU seconds of one call, `scores` targets looked at a sample; `trial` is what the
first call after a change of heights takes beyond the next ones, as a part of a call of the blocked
loop (median of nine).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import harness
import numpy as np

import otcuda


def points(rng: np.random.Generator, count: int, D: int, surface: np.ndarray | None) -> np.ndarray:
    if surface is None:
        return rng.standard_normal((count, D), np.float32)
    on_it = rng.standard_normal((count, len(surface)), np.float32) @ surface
    return on_it + np.float32(0.02) * rng.standard_normal((count, D), np.float32)


def seconds(call, *arguments) -> tuple[float, object]:
    start = time.process_time()
    result = call(*arguments)
    return time.process_time() - start, result


def trial(index: otcuda.PowerIndex, x: np.ndarray, h: np.ndarray) -> float:
    found = []
    for _ in range(9):
        index.set_heights(h)
        first, _ = seconds(index.argmax, x)
        later, _ = seconds(index.argmax, x)
        found.append(first - later)
    brute, _ = seconds(lambda: index.argmax(x, method="brute"))
    return statistics.median(found) / brute


def cases() -> Iterator[harness.Case]:
    rng = np.random.default_rng(0)
    sizes = [(N, D) for N in (65_536, 1_000_000) for D in (2, 3, 4, 8)]
    for N, D in [*sizes, (65_536, 16), (65_536, 64), (1_000_000, 16)]:
        surface = rng.standard_normal((6, D)).astype("f4") if D == 64 else None
        B = 4096 if N < 100_000 or D <= 4 else 1536
        x, y = points(rng, B, D, surface), points(rng, N, D, surface)
        h = -np.square(y).sum(1) / 2
        build, index = seconds(otcuda.PowerIndex, y)
        heights, _ = seconds(index.set_heights, h)
        otcuda.backend_info(reset=True)
        index.argmax(x, method="tree")
        scores = otcuda.backend_info(reset=True)["paths"]["power_argmax/tree_scores"]["items"]
        index.argmax(x)
        otcuda.backend_info(reset=True)
        index.argmax(x)
        ran = otcuda.backend_info()["paths"]
        chosen = next(
            (way for way in ("tree", "screen") if f"power_argmax/{way}" in ran), "blocked loop"
        )
        yield harness.Case(
            f"B={B} N={N} D={D}" + (" surface" if surface is not None else ""),
            (x,),
            work=1e-3 * B,
            unit="ksample/s",
            rivals={
                method: lambda x, method=method, index=index: index.argmax(x, method=method)
                for method in ("tree", "brute", *["screen"] * (D >= 8), "auto")
            },
            notes={
                "build": build,
                "heights": heights,
                "scores": scores / B,
                "chosen": chosen,
                "trial": trial(index, x, h),
            },
        )


if __name__ == "__main__":
    otcuda.set_num_threads(1)
    harness.main(
        "power_index",
        cases(),
        packages=["otcuda", "numpy"],
        backend=otcuda.backend_info,
        date=time.strftime("%Y-%m-%d"),
    )

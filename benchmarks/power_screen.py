# SPDX-License-Identifier: Apache-2.0
"""The integer screen beside the blocked loop, one thread: python benchmarks/power_screen.py.

`index` is a PowerIndex that has its integers, `call` power_argmax, which may have to make them,
`blocked` the loop over all targets. GFLOP/s count 2 B N D whatever was left out. First normal data
over N and D, then data that is hard for the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import harness
import numpy as np

import otcuda
from otcuda._ops import native

Arrays = tuple[np.ndarray, np.ndarray]


def nearest(y: np.ndarray) -> np.ndarray:
    return (-np.square(y.astype("f8")).sum(1) / 2).astype("f4")


def normal(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = (rng.standard_normal((n, D), np.float32) for n in (B, N))
    return x, y


def near_duplicates(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    return x, y[np.arange(N) // 16] + np.float32(1e-3) * rng.standard_normal((N, D), np.float32)


def on_a_surface(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    basis = rng.standard_normal((6, D), np.float32)
    x, y = (rng.standard_normal((n, 6), np.float32) @ basis for n in (B, N))
    return x, y


def wild_norms(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    return x, y * np.exp(3 * rng.standard_normal((N, 1), np.float32))


def constant_coordinate(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    x[:, 0] = y[:, 0] = 1000
    return x, y


def heavy_tails(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = (rng.standard_t(2, (n, D)).astype("f4") for n in (B, N))
    return x, y


def case(data: Callable[..., Arrays], B: int, N: int, D: int) -> harness.Case:
    x, y = data(np.random.default_rng(0), B, N, D)
    h = nearest(y)
    index = otcuda.PowerIndex(y, h, tree=False)
    index.argmax(x)  # makes the integers
    otcuda.backend_info(reset=True)
    index.argmax(x, method="screen")
    paths = otcuda.backend_info(reset=True)["paths"]
    return harness.Case(
        f"{data.__name__} B={B} N={N} D={D}",
        (x,),
        work=2e-9 * B * N * D,
        unit="GFLOP/s",
        rivals={
            "blocked": lambda x: index.argmax(x, method="brute"),
            "index": index.argmax,
            "call": lambda x: otcuda.power_argmax(x, y, h),
        },
        notes={"a sample": {path: one["items"] / B for path, one in paths.items()}},
        peak=lambda: 1e-9 * native.fma_peak(0.02),
    )


def cases() -> Iterator[harness.Case]:
    for N in (4096, 65_536):
        for D in (16, 32, 64, 256):
            yield case(normal, 1024, N, D)
    for data in (near_duplicates, on_a_surface, wild_norms, constant_coordinate, heavy_tails):
        yield case(data, 2048, 16_384, 64)


if __name__ == "__main__":
    otcuda.set_num_threads(1)
    harness.main(
        "power_screen",
        cases(),
        packages=["otcuda", "numpy"],
        backend=otcuda.backend_info,
        date=time.strftime("%Y-%m-%d"),
    )

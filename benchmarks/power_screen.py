# SPDX-License-Identifier: Apache-2.0
"""The integer screen beside the blocked loop, one thread: python benchmarks/power_screen.py.

`index` is a PowerIndex that has its integers, `call` power_argmax, which may have to make them,
`blocked` the loop over all targets; `avx2-index`, `avx512-index` and `vnni-index` the first at
those levels, of which the last has bytes alone, without bfloat16 where they give up. GFLOP/s count
2 B N D whatever was left out. First normal data over N and D, then data that is hard for the bound;
`same` says that all bits are the blocked loop's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import harness
import numpy as np

import otcuda
from otcuda._ops import native

Arrays = tuple[np.ndarray, ...]  # x, y and, where they are not those of the nearest one, heights


def nearest(y: np.ndarray) -> np.ndarray:
    return (-np.square(y.astype("f8")).sum(1) / 2).astype("f4")


def normal(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = (rng.standard_normal((n, D), np.float32) for n in (B, N))
    return x, y


def inner_product(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    return *normal(rng, B, N, D), np.zeros(N, "f4")


def near_duplicates(
    rng: np.random.Generator, B: int, N: int, D: int, distance: float = 1e-3
) -> Arrays:
    x, y = normal(rng, B, N, D)
    return x, y[np.arange(N) // 16] + np.float32(distance) * rng.standard_normal((N, D), "f4")


def nearer_duplicates(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    return near_duplicates(rng, B, N, D, 1e-6)


def duplicates(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    return x, y[np.arange(N) // 8]


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


def less_heavy_tails(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = (rng.standard_t(3, (n, D)).astype("f4") for n in (B, N))
    return x, y


def large_coordinates(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    x[:, :4], y[:, :4] = 30 * x[:, :4], 30 * y[:, :4]
    return x, y


def falling_spectrum(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    """Unit vectors whose coordinates fall as 1/d, as principal components do."""
    x, y = (a / np.arange(1, D + 1, dtype="f4") for a in normal(rng, B, N, D))
    return tuple(a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))


def huge_heights(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    return *normal(rng, B, N, D), (1e6 * rng.standard_normal(N)).astype("f4")


def half_dead(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    h = nearest(y)
    h[::2] = -np.inf
    return x, y, h


def one_huge_target(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    y[5] *= 1e4
    return x, y


def tiny_samples(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    return x * np.float32(1e-20), y


def zero_samples(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    return x * 0, y


def wild_rows(rng: np.random.Generator, B: int, N: int, D: int) -> Arrays:
    x, y = normal(rng, B, N, D)
    x[3], x[700, 0] = np.nan, np.inf
    return x, y


def of_level(level: str, y: np.ndarray, h: np.ndarray) -> Callable[[np.ndarray], Arrays]:
    index = otcuda.PowerIndex(y, h, tree=False)

    def argmax(x: np.ndarray) -> Arrays:
        otcuda.set_simd_level(level)
        found = index.argmax(x)
        otcuda.set_simd_level("auto")
        return found

    return argmax


def case(data: Callable[..., Arrays], B: int, N: int, D: int) -> harness.Case:
    x, y, *heights = data(np.random.default_rng(0), B, N, D)
    h = heights[0] if heights else nearest(y)
    index = otcuda.PowerIndex(y, h, tree=False)
    index.argmax(x)  # makes the integers
    otcuda.backend_info(reset=True)
    index.argmax(x, method="screen")
    paths = otcuda.backend_info(reset=True)["paths"]
    found = {
        "blocked": lambda x: index.argmax(x, method="brute"),
        "index": index.argmax,
        "call": lambda x: otcuda.power_argmax(x, y, h),
    }
    levels = otcuda.backend_info()["simd_levels"] + ["vnni"] * otcuda.backend_info()["simd_vnni"]
    for level in levels[1:]:
        found[f"{level}-index"] = of_level(level, y, h)
    bits = {tuple(a.tobytes() for a in call(x)) for call in found.values()}
    return harness.Case(
        f"{data.__name__} B={B} N={N} D={D}",
        (x,),
        work=2e-9 * B * N * D,
        unit="GFLOP/s",
        rivals=found,
        notes={
            "a sample": {path: one["items"] / B for path, one in paths.items()},
            "same": len(bits) == 1,
        },
        peak=lambda: 1e-9 * native.fma_peak(0.02),
    )


HARD = [
    normal, inner_product, near_duplicates, nearer_duplicates, duplicates, on_a_surface, wild_norms,
    constant_coordinate, huge_heights, half_dead, heavy_tails, less_heavy_tails, large_coordinates,
    falling_spectrum, one_huge_target, tiny_samples, zero_samples, wild_rows,
]  # fmt: skip


def cases() -> Iterator[harness.Case]:
    for data in HARD:
        yield case(data, 1029, 16_387, 64)
    for N in (4096, 65_536):
        for D in (16, 64, 256):
            yield case(normal, 1024, N, D)


if __name__ == "__main__":
    otcuda.set_num_threads(1)
    harness.main(
        "power_screen",
        cases(),
        packages=["otcuda", "numpy"],
        backend=otcuda.backend_info,
        date=time.strftime("%Y-%m-%d"),
    )

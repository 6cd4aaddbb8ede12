# SPDX-License-Identifier: Apache-2.0
"""Cost of gap, mass and the k best beside power_argmax: python benchmarks/power_topk.py.

One thread, normal x and y, heights of the nearest neighbour. `blocked` is the argmax without the
screen, `index` as PowerIndex chooses; `gap`, `mass` and `k=..` are its calls by the blocked loops,
`tree` and `k=8 tree` those by the tree, `k=.. index` as PowerIndex chooses. torch scores 256 rows
at a time, all columns, then topk; faiss on the augmented vectors (x, 1), (y, h). `same` is the
share of places that agree with ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import numpy as np
import torch

import otcuda
from otcuda._ops import native

try:
    import faiss
except ImportError:
    faiss = None

ROWS = 256


def torch_topk(k: int) -> Callable[..., np.ndarray]:
    def topk(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        x, y, h = map(torch.from_numpy, (x, y, h))
        parts = x.split(ROWS)
        return torch.cat([torch.addmm(h, part, y.T).topk(k)[1] for part in parts]).numpy()

    return topk


def faiss_topk(k: int, y: np.ndarray, h: np.ndarray) -> Callable[..., np.ndarray]:
    index = faiss.IndexFlatIP(y.shape[1] + 1)
    index.add(np.concatenate([y, h[:, None]], 1))

    def topk(x: np.ndarray, *_: np.ndarray) -> np.ndarray:
        return index.search(np.concatenate([x, np.ones((len(x), 1), "f4")], 1), k)[1]

    return topk


def of_index(index: otcuda.PowerIndex, method: str, k: int = 0, **options: Any) -> Callable:
    if k:
        return lambda x, *_: index.topk(x, k, method=method)
    return lambda x, *_: index.argmax(x, method=method, **options)


def rivals(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> dict[str, Callable[..., Any]]:
    low = y.shape[1] <= 4
    index = otcuda.PowerIndex(y, h, tree=low)
    found = {
        "blocked": of_index(index, "brute"),
        "index": of_index(index, "auto"),
        "gap": of_index(index, "brute", return_gap=True),
        "mass": of_index(index, "brute", return_mass=True),
        **{f"k={k}": of_index(index, "brute", k) for k in (2, 8, 64)},
        **{f"k={k} index": of_index(index, "auto", k) for k in (2, 8, 64)},
    }
    if low:
        found |= {"tree": of_index(index, "tree"), "k=8 tree": of_index(index, "tree", 8)}
    found |= {f"torch k={k}": torch_topk(k) for k in (8, 64)}
    if faiss is not None:
        found |= {f"faiss k={k}": faiss_topk(k, y, h) for k in (8, 64)}
    return found


def fma_peak() -> float:
    return 1e-9 * native.fma_peak(0.02)


def cases() -> Iterator[harness.Case]:
    rng = np.random.default_rng(0)
    for N, D in [(4096, 4), (4096, 16), (4096, 64), (65_536, 4), (65_536, 16), (65_536, 64)]:
        B = int(np.clip(2.5e8 / (2 * N * D), 256, 2048))
        x, y = (rng.standard_normal((n, D), np.float32) for n in (B, N))
        h = -np.square(y).sum(1) / 2
        found = rivals(x, y, h)
        lists = found["k=64"](x, y, h)[1]
        same = {
            name: float((call(x, y, h) == lists[:, : int(name.partition("=")[2])]).mean())
            for name, call in found.items()
            if name.startswith(("torch", "faiss"))
        }
        yield harness.Case(
            f"B={B} N={N} D={D}",
            (x, y, h),
            work=2e-9 * B * N * D,
            unit="GFLOP/s",
            rivals=found,
            notes={"same": same},
            peak=fma_peak,
        )


if __name__ == "__main__":
    otcuda.set_num_threads(1)
    torch.set_num_threads(1)
    if faiss is not None:
        faiss.omp_set_num_threads(1)
    otcuda.backend_info(reset=True)
    harness.main(
        "power_topk",
        cases(),
        packages=["otcuda", "torch", "numpy", "faiss-cpu"],
        backend=otcuda.backend_info,
        date=time.strftime("%Y-%m-%d"),
    )

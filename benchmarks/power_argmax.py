# SPDX-License-Identifier: Apache-2.0
"""power_argmax beside its rivals on one thread, GFLOP/s: python benchmarks/power_argmax.py.

Normal x and y, heights of the nearest neighbour. torch in the best of four chunkings, NumPy 256
rows a time, faiss on the augmented vectors (x, 1), (y, h). `same` is the share of rows with our
winner: the rivals are not exact. The peak is that of multiply-adds on registers, in every round.
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

CHUNKS = [(64, 4096), (256, 4096), (1024, 1024), (256, 1 << 30)]


def torch_in_chunks(rows: int, columns: int) -> Callable[..., np.ndarray]:
    """Take addmm and max chunk by chunk, so that scores stay in the cache."""

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        x, y, h = map(torch.from_numpy, (x, y, h))
        index = torch.empty(len(x), dtype=torch.int64)
        for b in range(0, len(x), rows):
            best, winner = None, None
            for i in range(0, len(y), columns):
                part = torch.addmm(h[i : i + columns], x[b : b + rows], y[i : i + columns].T)
                value, place = part.max(1)
                if best is None:
                    best, winner = value, place
                else:
                    better = value > best
                    best = torch.where(better, value, best)
                    winner = torch.where(better, place + i, winner)
            index[b : b + rows] = winner
        return index.numpy()

    return argmax


def numpy_rows(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    parts = [(x[b : b + 256] @ y.T + h).argmax(1) for b in range(0, len(x), 256)]
    return np.concatenate(parts)


def ours(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    return otcuda.power_argmax(x, y, h)[1]


def faiss_flat(y: np.ndarray, h: np.ndarray) -> Callable[..., np.ndarray]:
    index = faiss.IndexFlatIP(y.shape[1] + 1)
    index.add(np.concatenate([y, h[:, None]], 1))
    ones = np.ones((1 << 16, 1), "f4")

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        return index.search(np.concatenate([x, ones[: len(x)]], 1), 1)[1][:, 0]

    return argmax


def rivals(arguments: tuple[np.ndarray, ...]) -> dict[str, Callable[..., Any]]:
    def seconds(chunk: tuple[int, int]) -> float:
        return harness.seconds_of(torch_in_chunks(*chunk), arguments, 0.0)

    rows, columns = min(CHUNKS, key=seconds)
    name = f"torch {rows}x{'N' if columns > len(arguments[1]) else columns}"
    found = {"otcuda": ours, name: torch_in_chunks(rows, columns), "numpy": numpy_rows}
    if faiss is not None:
        found["faiss"] = faiss_flat(*arguments[1:])
    return found


def fma_peak() -> float:
    return 1e-9 * native.fma_peak(0.02)


def cases() -> Iterator[harness.Case]:
    rng = np.random.default_rng(0)
    for N in (4096, 65_536):
        for D in (2, 4, 8, 16, 17, 64, 128, 256):
            B = int(np.clip(1e9 / (2 * N * D), 512, 8192))
            x, y = (rng.standard_normal((n, D), np.float32) for n in (B, N))
            h = -np.square(y).sum(1) / 2
            arguments, winners = (x, y, h), ours(x, y, h)
            found = rivals(arguments)
            same = {
                name: float((call(*arguments) == winners).mean()) for name, call in found.items()
            }
            yield harness.Case(
                f"B={B} N={N} D={D}",
                arguments,
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
        "power_argmax",
        cases(),
        packages=["otcuda", "torch", "numpy", "faiss-cpu"],
        backend=otcuda.backend_info,
        date=time.strftime("%Y-%m-%d"),
    )

# SPDX-License-Identifier: Apache-2.0
"""power_argmax beside its rivals on one thread, GFLOP/s: python benchmarks/power_argmax.py.

Normal x and y, heights of the nearest neighbour. `otcuda` is power_argmax, which may make integers
of y for the call; `index` a PowerIndex that has them; `blocked` the same without the screen; `avx2`
and `avx2-index` the last two at that level. torch in the best of four chunkings, and in bfloat16;
NumPy and JAX 256 rows a time; torch.compile where asked for; faiss and ScaNN, both brute force, on
the augmented vectors (x, 1), (y, h). `same` is the share of rows with our winner: the rivals are
not exact. The peak is that of multiply-adds on registers, in every round (`avx2_peak`: at that
level); `dram` the rate, in GB/s, at which NumPy finds a maximum in memory. After N and D, the
blocked loop in float64 (half the peak: an instruction multiplies half as many), odd sizes, and
curves over B and N; `memory` is what a call takes beyond its arguments, each in a process of its
own, an index or a graph made in it included. `--plot` draws docs/img/power_argmax.png of the
stored figures.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
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
try:
    import scann
except ImportError:
    scann = None
try:
    import jax
except ImportError:
    jax = None

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "power_argmax.png"
MEMORY = (2048, 65_536, 64)  # B, N, D
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


def torch_bfloat16(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    x, y, h = (torch.from_numpy(a).bfloat16() for a in (x, y, h))
    parts = [torch.addmm(h, part, y.T).max(1)[1] for part in x.split(256)]
    return torch.cat(parts).numpy()


def torch_compiled() -> Callable[..., np.ndarray]:
    compiled = torch.compile(lambda x, y, h: (x @ y.T + h).max(1)[1])

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        x, y, h = map(torch.from_numpy, (x, y, h))
        return torch.cat([compiled(part, y, h) for part in x.split(256)]).numpy()

    return argmax


def jax_rows() -> Callable[..., np.ndarray]:
    jitted = jax.jit(lambda x, y, h: (x @ y.T + h).argmax(1))

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        parts = [np.asarray(jitted(x[b : b + 256], y, h)) for b in range(0, len(x), 256)]
        return np.concatenate(parts)

    return argmax


def by_index(
    method: str, y: np.ndarray, h: np.ndarray, level: str = "auto"
) -> Callable[..., np.ndarray]:
    index = otcuda.PowerIndex(y, h, tree=False)
    otcuda.set_simd_level(level)  # an index is centred on the first samples that it sees
    index.argmax(np.random.default_rng(1).standard_normal((64, y.shape[1])).astype(y.dtype))
    otcuda.set_simd_level("auto")

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        otcuda.set_simd_level(level)
        winner = index.argmax(x, method=method)[1]
        otcuda.set_simd_level("auto")
        return winner

    return argmax


def dram_rate() -> float:
    """GB/s of one thread reading 256 MB, the best of five; a maximum waits for nothing else."""
    block = np.ones(1 << 26, np.int32)
    return max(4e-9 * block.size / harness.seconds_of(np.max, (block,), 0.0) for _ in range(5))


def ours(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    return otcuda.power_argmax(x, y, h)[1]


def faiss_flat(y: np.ndarray, h: np.ndarray) -> Callable[..., np.ndarray]:
    index = faiss.IndexFlatIP(y.shape[1] + 1)
    index.add(np.concatenate([y, h[:, None]], 1))
    ones = np.ones((1 << 16, 1), "f4")

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        return index.search(np.concatenate([x, ones[: len(x)]], 1), 1)[1][:, 0]

    return argmax


def scann_brute(y: np.ndarray, h: np.ndarray) -> Callable[..., np.ndarray]:
    rows = np.concatenate([y, h[:, None]], 1)
    searcher = scann.scann_ops_pybind.builder(rows, 1, "dot_product").score_brute_force().build()
    ones = np.ones((1 << 16, 1), "f4")

    def argmax(x: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
        winners = searcher.search_batched(np.concatenate([x, ones[: len(x)]], 1))[0]
        return winners[:, 0].astype("i8")

    return argmax


def rivals(arguments: tuple[np.ndarray, ...]) -> dict[str, Callable[..., Any]]:
    def seconds(chunk: tuple[int, int]) -> float:
        return harness.seconds_of(torch_in_chunks(*chunk), arguments, 0.0)

    rows, columns = min(CHUNKS, key=seconds)
    name = f"torch {rows}x{'N' if columns > len(arguments[1]) else columns}"
    found = {
        "otcuda": ours,
        "index": by_index("auto", *arguments[1:]),
        "blocked": by_index("brute", *arguments[1:]),
        "avx2": by_index("brute", *arguments[1:], "avx2"),
        "avx2-index": by_index("auto", *arguments[1:], "avx2"),
        name: torch_in_chunks(rows, columns),
        "numpy": numpy_rows,
    }
    if "bfloat16" in extra_rivals():
        found["torch bfloat16"] = torch_bfloat16
    if "compile" in extra_rivals():
        found["torch.compile"] = torch_compiled()
    if jax is not None:
        found["jax"] = jax_rows()
    if faiss is not None:
        found["faiss"] = faiss_flat(*arguments[1:])
    if scann is not None:
        found["scann"] = scann_brute(*arguments[1:])
    return found


def extra_rivals() -> str:
    """OTCUDA_RIVALS=bfloat16,compile: slow to run (no bfloat16 in the CPU) or to start."""
    return os.environ.get("OTCUDA_RIVALS", "")


def fma_peak(level: str = "auto") -> float:
    otcuda.set_simd_level(level)
    peak = 1e-9 * native.fma_peak(0.02)
    otcuda.set_simd_level("auto")
    return peak


def case(B: int, N: int, D: int, names: set[str] | None = None) -> harness.Case:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, D), np.float32) for n in (B, N))
    h = -np.square(y).sum(1) / 2
    arguments, winners = (x, y, h), ours(x, y, h)
    found = {k: call for k, call in rivals(arguments).items() if not names or k.split()[0] in names}
    same = {name: float((call(*arguments) == winners).mean()) for name, call in found.items()}
    return harness.Case(
        f"B={B} N={N} D={D}",
        arguments,
        work=2e-9 * B * N * D,
        unit="GFLOP/s",
        rivals=found,
        notes={"same": same, "avx2_peak": fma_peak("avx2")},
        peak=fma_peak,
    )


def double_case(B: int, N: int, D: int) -> harness.Case:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, D)) for n in (B, N))
    h = -np.square(y).sum(1) / 2
    rivals = {"blocked": by_index("brute", y, h), "avx2": by_index("brute", y, h, "avx2")}
    return harness.Case(
        f"float64 B={B} N={N} D={D}",
        (x, y, h),
        work=2e-9 * B * N * D,
        unit="GFLOP/s",
        rivals={**rivals, "numpy": numpy_rows},
        notes={"avx2_peak": fma_peak("avx2") / 2},
        peak=lambda: fma_peak() / 2,
    )


def cases() -> Iterator[harness.Case]:
    for N, B in ((4096, 4096), (65_536, 2048)):
        for D in (2, 4, 8, 16, 17, 64, 128, 256):
            yield case(B if D >= 16 or N == 4096 else B // 4, N, D)
    for N, B in ((4096, 2048), (65_536, 1024)):
        for D in (2, 3, 4, 8, 16, 17, 64, 128, 256):
            yield double_case(B if D >= 16 or N == 4096 else B // 4, N, D)
    for B, N, D in ((2047, 65_535, 63), (2048, 65_536, 64), (2049, 65_537, 65), (2053, 65_539, 67)):
        yield case(B, N, D, {"otcuda", "index", "blocked", "avx2"})
    for B in (1, 2, 4, 8, 16, 24, 25, 64, 65, 256):
        yield case(B, 65_536, 64, {"otcuda", "index", "blocked", "avx2", "torch", "numpy"})
    for N in (1024, 2048, 8192, 16_384, 262_144):
        some = {"otcuda", "index", "blocked", "avx2", "torch", "numpy", "faiss"}
        yield case(2048 if N < 100_000 else 512, N, 64, some)
    for B in (1, 4, 8, 16, 512):
        yield case(B, 1_000_000, 64, {"index", "blocked", "torch"})


def print_memory(name: str) -> None:
    """Bytes that a rival takes beyond its arguments; a first small call loads what it loads."""
    B, N, D = MEMORY
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, D), np.float32) for n in (B, N))
    h = -np.square(y).sum(1) / 2
    makers = {
        "otcuda": lambda *_: ours,
        "index": lambda *some: by_index("auto", *some),
        "torch, all scores": lambda *_: torch_in_chunks(B, N),
        "torch 256x4096": lambda *_: torch_in_chunks(256, 4096),
        "numpy": lambda *_: numpy_rows,
        "jax": lambda *_: jax_rows(),
        "faiss": faiss_flat,
        "scann": scann_brute,
    }
    makers[name](y[:4096].copy(), h[:4096].copy())(x[:512].copy(), y[:4096].copy(), h[:4096].copy())
    Path("/proc/self/clear_refs").write_text("5")  # the peak of what came before does not count
    before = harness.resident("VmRSS")
    makers[name](y, h)(x, y, h)
    print(max(0, harness.resident("VmHWM") - before))


def memory() -> dict[str, int]:
    """`print_memory` of every rival that is installed."""
    found = {"jax": jax, "faiss": faiss, "scann": scann}
    names = ["otcuda", "index", "torch, all scores", "torch 256x4096", "numpy"]
    names += [name for name, module in found.items() if module is not None]
    code = "import sys, power_argmax as p; p.set_one_thread(); p.print_memory(sys.argv[1])"
    taken = {}
    for name in names:
        command = [sys.executable, "-c", code, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken[name] = int(done.stdout.split()[-1])
        print(f"memory {name:20s} {taken[name] / 1e6:8.1f} MB", flush=True)
    return taken


def set_one_thread() -> None:
    """Ours and theirs."""
    otcuda.set_num_threads(1)
    torch.set_num_threads(1)
    if faiss is not None:
        faiss.omp_set_num_threads(1)


def draw(machine: str) -> None:
    """Curves over D, B and N of the stored figures, and the memory of a call; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kept = json.loads((harness.RESULTS / f"power_argmax.{machine}.json").read_text())
    rows = [row for row in kept["rows"] if row["case"].startswith("B=")]
    places = [tuple(map(int, re.findall(r"=(\d+)", row["case"]))) for row in rows]
    panels = (
        ("D, N = 65,536", lambda B, N, D: D if N == 65_536 and B >= 512 else None),
        ("B, N = 65,536, D = 64", lambda B, N, D: B if (N, D) == (65_536, 64) else None),
        ("N, D = 64", lambda B, N, D: N if D == 64 and B >= 512 else None),
    )
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 4))
    colours: dict[str, str] = {}
    for panel, (label, where) in zip(axes, panels, strict=False):
        curves: dict[str, dict[int, float]] = {}
        for place, row in zip(places, rows, strict=True):
            at = where(*place)
            for name, rate in row["rates"].items() if at is not None else ():
                curves.setdefault(name.split()[0], {})[at] = rate["median"]
        for name, curve in curves.items():
            if len(curve) > 2:
                colour = colours.setdefault(name, f"C{len(colours)}")
                points = zip(*sorted(curve.items()), strict=True)
                panel.plot(*points, "o-", color=colour, label=name, ms=3)
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel="GFLOP/s")
    axes[0].legend(fontsize=7)
    names, taken = zip(*kept["memory"].items(), strict=True)
    axes[-1].barh(names, [max(each, 1) / 1e6 for each in taken])
    B, N, D = MEMORY
    axes[-1].set(xscale="log", xlabel=f"MB of a call, {B:,} x {D} against {N:,}")
    axes[-1].invert_yaxis()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=80, pil_kwargs={"optimize": True})
    pyplot.close(figure)


if __name__ == "__main__":
    if sys.argv[1:] == ["--plot"]:
        draw(platform.machine())
        sys.exit()
    set_one_thread()
    otcuda.backend_info(reset=True)
    harness.main(
        "power_argmax",
        cases(),
        packages=["otcuda", "torch", "numpy", "jax", "faiss-cpu", "scann"],
        backend=otcuda.backend_info,
        dram=dram_rate,
        memory=memory,
        date=time.strftime("%Y-%m-%d"),
    )

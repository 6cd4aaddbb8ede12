# SPDX-License-Identifier: Apache-2.0
"""The ops on a CUDA device beside their rivals: python benchmarks/gpu.py argmax | solve | rans32.

Rounds are interleaved, the first is dropped, times are medians of CUDA events. Rivals of argmax:
torch addmm + max in chunks, in float32 (exact but for order) and in bfloat16 (inexact), and faiss
where its GPU build is installed; and both of our own paths. `same` is the share of samples with our
winner. rans32 is measured beside our own CPU code, on symbols that stay where they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import torch

import otcuda
from otcuda import _screen
from otcuda._io import atomic_write
from otcuda._ops import native
from otcuda.coding import Tables, decode, decode_blocks, encode_blocks, encode_long

Rivals = dict[str, Callable[[], torch.Tensor]]


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def addmm_max(x: torch.Tensor, y: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Scores of some samples at a time, at most 1 GiB of them."""
    rows = max(1, (1 << 30) // (len(y) * x.element_size()))
    parts = [torch.addmm(h, part, y.T).max(1)[1] for part in x.split(rows)]
    return torch.cat(parts)


def faiss_flat(x: torch.Tensor, y: torch.Tensor, h: torch.Tensor) -> Callable[[], torch.Tensor]:
    import faiss
    import faiss.contrib.torch_utils

    index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), y.shape[1] + 1)
    index.add(torch.cat([y, h[:, None]], 1))
    queries = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return lambda: index.search(queries, 1)[1][:, 0]


def argmax_rivals(x: torch.Tensor, y: torch.Tensor, h: torch.Tensor) -> Rivals:
    half = [a.bfloat16() for a in (x, y, h)]
    rivals: Rivals = {
        "otcuda": lambda: otcuda.power_argmax(x, y, h)[1],
        "torch float32": lambda: addmm_max(x, y, h),
        "torch bfloat16 (inexact)": lambda: addmm_max(*half),
    }
    if x.is_cuda:
        rivals["otcuda plain"] = lambda: _screen.run(native, "power_argmax", x, y, h)[1]
        if x.shape[1] <= 128:
            rivals["otcuda screen"] = lambda: _screen.run(native, "power_argmax_screen", x, y, h)[1]
        with contextlib.suppress(ImportError, AttributeError):  # absent, or built for CPUs
            rivals["faiss"] = faiss_flat(x, y, h)
    return rivals


def argmax_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    sizes = [(65_536, 4096), (65_536, 65_536), (16_384, 1 << 20)]
    for B, N in [(256, 512)] if small else sizes:
        for D in (16, 64, 128, 256):
            x, y = (torch.randn(n, D, device=device) for n in (B, N))
            rivals = argmax_rivals(x, y, -y.square().sum(1) / 2)
            yield f"B={B} N={N} D={D}", 2e-12 * B * N * D, "TFLOP/s", rivals


def solve_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    for N, D, batch in [(100, 4, 200)] if small else [(4096, 16, 16_384), (65_536, 64, 65_536)]:
        y, steps = torch.randn(N, D, device=device), 3 if small else 100

        def solve(y=y, steps=steps, batch=batch) -> torch.Tensor:
            return otcuda.heights_adam_solve(y, iterations=steps, batch=batch)[0].h

        yield f"N={N} D={D} batch={batch}", steps, "steps/s", {"otcuda": solve}


def rans32_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    """Symbols of one table, and of 64 by an index; blocks of 8,192."""
    n, block = (4096, 512) if small else (1 << 24, 8192)
    generator = torch.Generator().manual_seed(0)
    for scales in ([3.0], [0.11 * 1.1**k for k in range(64)]):
        tables = Tables.gaussian(scales, -128, 127)
        index = torch.randint(0, len(scales), (n,), generator=generator)
        noise = torch.randn(n, generator=generator) * torch.tensor(scales)[index]
        symbols = noise.round().clamp(-128, 127).to(torch.int16)
        index = index.to(torch.uint8)
        blob = encode_long(symbols, tables, index, block)
        rivals: Rivals = {
            "encode, cpu": lambda t=tables, s=symbols, i=index: _size(encode_long(s, t, i, block)),
            "decode, cpu": lambda t=tables, b=blob, i=index: decode(b, t, i),
        }
        if device.type == "cuda":
            s, i = symbols.to(device), index.to(device)
            message = encode_blocks(s, tables, i, block)
            rivals["encode"] = lambda t=tables, s=s, i=i: encode_blocks(s, t, i, block, False).size
            rivals["decode"] = lambda t=tables, m=message, i=i: decode_blocks(m, t, i, False)
        rivals["otcuda"] = rivals.get("decode", rivals["decode, cpu"])
        yield f"n={n} tables={len(scales)}", 1e-9 * n, "Gsymbol/s", rivals


def _size(blob: bytes) -> torch.Tensor:
    return torch.tensor(len(blob))


def measure(rivals: Rivals, work: float, device: torch.device, rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name, call in rivals.items():
            seconds = seconds_of(call, device)
            if turn:
                rates[name].append(work / seconds)
    ours = rivals["otcuda"]()
    results = {n: call() for n, call in rivals.items()}
    same = {
        n: float((a.to(ours.device) == ours).float().mean())
        for n, a in results.items()
        if a.shape == ours.shape
    }
    median = {n: statistics.median(values) for n, values in rates.items()}
    spread = {n: [min(values), max(values)] for n, values in rates.items()}
    return {"rates": median, "ranges": spread, "same": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("op", choices=["argmax", "solve", "rans32"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="tiny sizes, no file: is it in order?")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    otcuda.backend_info(reset=True)
    makers = {"argmax": argmax_cases, "solve": solve_cases, "rans32": rans32_cases}
    cases = makers[options.op](device, options.small)
    rows = []
    for name, work, unit, rivals in cases:
        row = {"case": name, "unit": unit, **measure(rivals, work, device, options.rounds)}
        rows.append(row)
        rates = "  ".join(f"{rival} {rate:.4g}" for rival, rate in row["rates"].items())
        print(f"{name:28s} {unit:8s} {rates}", flush=True)
    if options.small:
        return
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    result = {"op": options.op, "card": card, **harness.environment(["otcuda", "torch"])}
    result |= {"backend": otcuda.backend_info(), "rounds": options.rounds, "rows": rows}
    harness.RESULTS.mkdir(exist_ok=True)
    path = harness.RESULTS / f"gpu_{options.op}.{card.replace(' ', '_')}.json"
    atomic_write(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

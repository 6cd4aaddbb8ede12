# SPDX-License-Identifier: Apache-2.0
"""Ops on a CUDA device beside their rivals: python benchmarks/gpu.py argmax | topk | mass | ...

Rounds are interleaved, the first is dropped, times are medians of CUDA events. Rivals of argmax:
torch addmm + max in chunks, in float32 (exact but for order) and in bfloat16 (inexact), and faiss
where its GPU build is installed; and our own paths, each forced: plain, mma.sync, wgmma. `same` is
the share of samples with our winner. topk stands beside torch addmm + topk, mass beside
torch.bincount, solve also as a captured graph, rans32 beside our own CPU code and torch_ans where
that is installed, range64 beside our own CPU code; symbols stay where they are.
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
from otcuda.coding import (
    Tables,
    decode,
    decode_batch,
    decode_blocks,
    decode_messages,
    encode_batch,
    encode_blocks,
    encode_long,
    encode_messages,
)

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


def addmm_topk(x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: int) -> torch.Tensor:
    """As addmm_max."""
    rows = max(1, (1 << 30) // (len(y) * x.element_size()))
    parts = [torch.addmm(h, part, y.T).topk(k, dim=1)[1] for part in x.split(rows)]
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
        screens = {"mma.sync": "power_argmax_screen"}  # whatever the dispatch would choose
        if native.power_argmax_has_wgmma(x.device.index):
            screens["wgmma"] = "power_argmax_wgmma"
        for name, kernel in screens.items() if x.shape[1] <= 128 else ():
            rivals[f"otcuda {name}"] = lambda k=kernel: _screen.run(native, k, x, y, h)[1]
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


def topk_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    """Lists, and the best with its gap, beside torch's addmm and topk in chunks."""
    sizes = [(65_536, 4096), (65_536, 65_536)]
    for B, N in [(256, 512)] if small else sizes:
        for D, k in ((16, 2), (64, 2), (64, 16), (64, 64)):
            x, y = (torch.randn(n, D, device=device) for n in (B, N))
            h = -y.square().sum(1) / 2
            rivals: Rivals = {
                "otcuda": lambda x=x, y=y, h=h, k=k: otcuda.power_topk(x, y, h, k)[1],
                "torch float32": lambda x=x, y=y, h=h, k=k: addmm_topk(x, y, h, k),
                "otcuda, the best alone": lambda x=x, y=y, h=h: otcuda.power_argmax(x, y, h)[1],
            }
            if k == 2:
                rivals["otcuda, gap"] = lambda x=x, y=y, h=h: otcuda.power_argmax(
                    x, y, h, return_gap=True
                )[1]
            yield f"B={B} N={N} D={D} k={k}", 2e-12 * B * N * D, "TFLOP/s", rivals


def solve_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    for N, D, batch in [(100, 4, 200)] if small else [(4096, 16, 16_384), (65_536, 64, 65_536)]:
        y, steps = torch.randn(N, D, device=device), 3 if small else 100

        def solve(y=y, steps=steps, batch=batch) -> torch.Tensor:
            return otcuda.heights_adam_solve(y, iterations=steps, batch=batch)[0].h

        rivals: Rivals = {"otcuda": solve}
        if device.type == "cuda":
            rivals["otcuda, graph"] = captured_solve(y, steps, batch)
        yield f"N={N} D={D} batch={batch}", steps, "steps/s", rivals


def captured_solve(y: torch.Tensor, steps: int, batch: int) -> Callable[[], torch.Tensor]:
    """The same steps as one graph; each replay goes on from the one before."""
    step = torch.zeros(1, dtype=torch.int64, device=y.device)
    state = otcuda.HeightsState(*(torch.zeros_like(y[:, 0]) for _ in range(3)), step)
    otcuda.heights_adam_solve(y, iterations=1, batch=batch, state=state)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        otcuda.heights_adam_solve(y, iterations=steps, batch=batch, state=state)

    def replay() -> torch.Tensor:
        graph.replay()
        return state.h

    return replay


def mass_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    """Counts and sums, of few cells (in shared memory) and of many."""
    B = 4096 if small else 1 << 24
    for N in (100, 4096, 1 << 20):
        index, weights = torch.randint(N, (B,), device=device), torch.rand(B, device=device)

        def ours(w: Any = None, i=index, N=N) -> torch.Tensor:
            return otcuda.cell_mass(i, N, w)

        def torchs(w: Any = None, i=index, N=N) -> torch.Tensor:
            return torch.bincount(i, w, minlength=N)

        yield f"counts N={N}", 1e-9 * B, "Gsample/s", {"otcuda": ours, "torch": torchs}
        weighted: Rivals = {
            "otcuda": lambda f=ours, w=weights: f(w),
            "torch (order varies)": lambda f=torchs, w=weights: f(w),
        }
        yield f"sums N={N}", 1e-9 * B, "Gsample/s", weighted


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
            try:
                rivals |= torch_ans_rivals(tables, s, i)
            except Exception as error:  # absent, or another version: the others are measured
                print(f"torch_ans is left out: {error}")
        rivals["otcuda"] = rivals.get("decode", rivals["decode, cpu"])
        yield f"n={n} tables={len(scales)}", 1e-9 * n, "Gsymbol/s", rivals


def torch_ans_rivals(tables: Tables, symbols: torch.Tensor, index: torch.Tensor) -> Rivals:
    """torch_ans with 32 lanes a stream, in streams of 8,192 symbols, by the same frequencies."""
    from torch_ans.utils import TorchANSInterface

    settings = {"freq_precision": tables.precision, "num_interleaves": 32, "bypass_coding": False}
    coder = TorchANSInterface(impl="rans32_16", device=str(symbols.device), **settings)
    pmf = torch.from_numpy(tables.frequencies.clip(1).astype("f4")).to(symbols.device)
    sizes = torch.full((len(pmf),), pmf.shape[1], dtype=torch.int32)
    coder.init_params(pmf / pmf.sum(1, keepdim=True), sizes, torch.zeros_like(sizes))
    values = (symbols.int() - tables.low).view(-1, 8192)
    which = index.int().view(-1, 8192)
    message = coder.encode_with_indexes(values, which)
    return {
        "torch_ans encode": lambda: (coder.encode_with_indexes(values, which), symbols)[1],
        "torch_ans decode": lambda: coder.decode_with_indexes(message, which),
    }


def range64_cases(device: torch.device, small: bool) -> Iterator[tuple[str, float, str, Rivals]]:
    """Messages of 100 and of 1,000 symbols; as many as a card wants."""
    n = 4000 if small else 1 << 23
    tables = Tables.gaussian([0.11 * 1.1**k for k in range(64)], -128, 127)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 64, (n,), generator=generator).to(torch.uint8)
    symbols = (3 * torch.randn(n, generator=generator)).round().to(torch.int16)
    for length in (100, 1000):
        ends = torch.arange(1, n // length + 1) * length
        count, size = len(ends), len(ends) * length
        s, i = symbols[:size], index[:size]
        parts = s.numpy().reshape(count, length), i.numpy().reshape(count, length)
        batch = encode_batch(parts[0], tables, parts[1])
        rivals: Rivals = {
            "encode, cpu": lambda p=parts: _size(b"".join(encode_batch(p[0], tables, p[1]))),
            "decode, cpu": lambda b=batch, p=parts: _size(decode_batch(b, tables, p[1])),
        }
        if device.type == "cuda":
            s, i, e = s.to(device), i.to(device), ends.to(device)
            sent = encode_messages(s, tables, e, i)

            def encode(s=s, e=e, i=i) -> torch.Tensor:
                return encode_messages(s, tables, e, i, check=False).byte_ends

            rivals["encode"] = encode
            rivals["decode"] = lambda m=sent, i=i: decode_messages(m, tables, i, check=False)
        rivals["otcuda"] = rivals.get("decode", rivals["decode, cpu"])
        yield f"messages={count} length={length}", 1e-9 * size, "Gsymbol/s", rivals


def _size(blob: Any) -> torch.Tensor:
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
    makers = {
        "argmax": argmax_cases,
        "topk": topk_cases,
        "mass": mass_cases,
        "solve": solve_cases,
        "rans32": rans32_cases,
        "range64": range64_cases,
    }
    parser.add_argument("op", choices=list(makers))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="tiny sizes, no file: is it in order?")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    otcuda.backend_info(reset=True)
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

# SPDX-License-Identifier: Apache-2.0
"""rans32 beside its rivals on one thread: python benchmarks/rans32.py.

Whole Python calls; inputs lie ready in the form each library likes best. "conditional": one of 64
Gaussian tables for each symbol; "static": one table. "otcuda" writes and checks the long container;
"otcuda avx2" and "otcuda portable" are the same at those levels. torch_ans is given our integer
tables; CompressAI's `ans` extension too, in the lists it wants (COMPRESSAI_ANS names its file).
`excess` is bytes, heads included, over the Shannon information under the unrounded model, percent.
Rivals that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import numpy as np
from range64 import HIGH, LOW, SCALES, at_level, gaussian_pmf

from otcuda._ops import native
from otcuda.coding import Tables, decode, encode_long
from otcuda.coding.rans32 import read_head

BLOCK = None  # as encode_long chooses
Pair = tuple[Callable[[], Any], Callable[[], Any], int]  # encode, decode, bytes


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def ours(symbols: np.ndarray, tables: Tables, index: Any, block: int | None = BLOCK) -> Pair:
    blob = encode_long(symbols, tables, index, block)
    np.testing.assert_array_equal(decode(blob, tables, index), symbols)
    return (
        lambda: encode_long(symbols, tables, index, block),
        lambda: decode(blob, tables, index),
        len(blob),
    )


def constriction_pair(symbols: np.ndarray, pmf: np.ndarray, scales: Any) -> Pair:
    import constriction

    stream, values = constriction.stream, symbols.astype(np.int32)
    if scales is None:
        values = values - LOW
        model = stream.model.Categorical(pmf.astype(np.float32), perfect=False)
        given, asked = (model,), (model, len(values))
    else:
        family = stream.model.QuantizedGaussian(LOW, HIGH)
        given = asked = (family, np.zeros(len(values)), scales)

    def encode_range() -> np.ndarray:
        encoder = stream.queue.RangeEncoder()
        encoder.encode(values, *given)
        return encoder.get_compressed()

    message = encode_range()
    return encode_range, lambda: stream.queue.RangeDecoder(message).decode(*asked), message.nbytes


def zstd_pair(symbols: np.ndarray) -> Pair:
    import zstandard

    data, writer, reader = (
        symbols.tobytes(),
        zstandard.ZstdCompressor(level=1),
        zstandard.ZstdDecompressor(),
    )
    message = writer.compress(data)
    assert reader.decompress(message) == data
    return lambda: writer.compress(data), lambda: reader.decompress(message), len(message)


def torch_ans_pair(symbols: np.ndarray, index: np.ndarray, pmf: np.ndarray) -> Pair:
    import torch
    from torch_ans.utils import TorchANSInterface, build_cdf_with_inverse_table

    torch.set_num_threads(1)
    T, lanes = len(pmf), 8
    frequencies = Tables.from_pmf(pmf, 16, escape=False).frequencies.astype(np.int64)
    cdf = np.concatenate([np.zeros((T, 1), np.int64), frequencies.cumsum(1)], 1).astype(np.int32)
    coder = TorchANSInterface(
        impl="rans64",
        freq_precision=16,
        device="cpu",
        num_interleaves=lanes,
        bypass_coding=False,
        inverse_cdf_precision="auto",
    )
    n = pmf.shape[1]
    sizes, offsets = torch.full((T,), n, dtype=torch.int32), torch.zeros(T, dtype=torch.int32)
    coder.init_params(torch.ones(T, n), sizes, offsets)
    coder.cdfs = build_cdf_with_inverse_table(
        torch.from_numpy(cdf),
        freq_precision=16,
        table_precision=coder.inverse_cdf_precision,
        native=coder._native,
    ).contiguous()
    values = torch.from_numpy(symbols.astype(np.int32) - LOW).view(lanes, -1).contiguous()
    which = torch.from_numpy(index.astype(np.int32)).view(lanes, -1).contiguous()
    message = coder.encode_with_indexes(values, which)
    assert torch.equal(coder.decode_with_indexes(message, which).view_as(values).int(), values)
    size = len(message) if isinstance(message, bytes) else sum(map(len, message))
    return (
        lambda: coder.encode_with_indexes(values, which),
        lambda: coder.decode_with_indexes(message, which),
        size,
    )


def compressai_pair(symbols: np.ndarray, index: np.ndarray, pmf: np.ndarray, path: str) -> Pair:
    """The last symbol of each table is its sentinel: never used here, as nothing lies outside."""
    spec = importlib.util.spec_from_file_location("ans", path)
    ans = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ans)
    weights = np.pad(np.rint(pmf * 2**31).astype(np.int64), ((0, 0), (0, 1)))
    frequencies = Tables.from_weights(weights, 16, escape=False).frequencies.astype(np.int64)
    cdfs = np.pad(frequencies.cumsum(1), ((0, 0), (1, 0))).tolist()
    sizes, offsets = [len(row) for row in cdfs], [LOW] * len(cdfs)
    values, which = symbols.astype(int).tolist(), index.astype(int).tolist()
    message = ans.RansEncoder().encode_with_indexes(values, which, cdfs, sizes, offsets)
    decoder = ans.RansDecoder()
    assert decoder.decode_with_indexes(message, which, cdfs, sizes, offsets) == values
    return (
        lambda: ans.RansEncoder().encode_with_indexes(values, which, cdfs, sizes, offsets),
        lambda: decoder.decode_with_indexes(message, which, cdfs, sizes, offsets),
        len(message),
    )


def simple_ans_pair(symbols: np.ndarray) -> Pair:
    import simple_ans

    values = symbols.view(np.uint8)
    message = simple_ans.ans_encode(values)
    np.testing.assert_array_equal(simple_ans.ans_decode(message), values)
    size = message.size()
    return lambda: simple_ans.ans_encode(values), lambda: simple_ans.ans_decode(message), size


def rivals(symbols: np.ndarray, index: Any, pmf: np.ndarray, tables: Tables) -> dict[str, Pair]:
    first = ours(symbols, tables, index)
    levels = {
        f"otcuda {level}": (*(at_level(level, call) for call in first[:2]), first[2])
        for level in native.simd_levels()[:-1]
    }
    blob, room = encode_long(symbols, tables, index, BLOCK), np.empty_like(symbols)
    into = (first[0], lambda: decode(blob, tables, index, out=room), first[2])
    found: dict[str, Pair] = {
        "otcuda": first,
        "otcuda out=": into,
        **levels,
    }
    if installed("constriction"):
        scales = None if index is None else SCALES[index]
        found["constriction"] = constriction_pair(symbols, pmf[0], scales)
    if installed("torch_ans") and len(symbols) % 8 == 0:
        which = np.zeros(len(symbols), np.int32) if index is None else index
        found["torch_ans"] = torch_ans_pair(symbols, which, pmf)
    if "COMPRESSAI_ANS" in os.environ and len(symbols) <= 100_000:  # its lists take their time
        which = np.zeros(len(symbols), np.int32) if index is None else index
        found["compressai"] = compressai_pair(symbols, which, pmf, os.environ["COMPRESSAI_ANS"])
    if installed("simple_ans") and index is None:
        found["simple_ans"] = simple_ans_pair(symbols)
    if installed("zstandard") and index is None:
        found["zstd -1"] = zstd_pair(symbols)
    return found


def both_ways(
    kind: str, symbols: np.ndarray, pairs: dict[str, Pair], bits: float
) -> Iterator[harness.Case]:
    excess = {name: round(100 * (8 * pair[2] / bits - 1), 4) for name, pair in pairs.items()}
    notes = {"bits_per_symbol": round(bits / len(symbols), 4), "excess_percent": excess}
    for way, verb in enumerate(("encode", "decode")):
        calls = {name: pair[way] for name, pair in pairs.items()}
        if verb == "encode":
            del calls["otcuda out="]
        name = f"{kind} {verb} n={len(symbols)}"
        yield harness.Case(name, (), len(symbols) / 1e6, "Msym/s", calls, notes)


def conditional(length: int) -> Iterator[harness.Case]:
    rng = np.random.default_rng(length)
    index = rng.integers(0, len(SCALES), length).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(length) * SCALES[index]).clip(LOW, HIGH).astype(np.int8)
    pmf = np.stack([gaussian_pmf(scale) for scale in SCALES])
    bits = -np.log2(pmf[index, symbols.astype(int) - LOW]).sum()
    pairs = rivals(symbols, index, pmf, Tables.gaussian(SCALES, LOW, HIGH))
    yield from both_ways("conditional", symbols, pairs, bits)


def static(length: int) -> Iterator[harness.Case]:
    rng = np.random.default_rng(length + 1)
    pmf = 0.999 * gaussian_pmf(7.7) + 0.001 / 256
    symbols = (rng.choice(256, length, p=pmf) + LOW).astype(np.int8)
    bits = -np.log2(pmf[symbols.astype(int) - LOW]).sum()
    pairs = rivals(symbols, None, pmf[None], Tables.from_pmf(pmf, low=LOW))
    yield from both_ways("static", symbols, pairs, bits)


def excess_of_large_blocks() -> dict[str, float]:
    """One block of 2^20 symbols with escapes: percent over Shannon, by precision."""
    rng = np.random.default_rng(9)
    index = rng.integers(0, len(SCALES), 1 << 20).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(1 << 20) * SCALES[index]).clip(LOW, HIGH).astype(np.int8)
    pmf = np.stack([gaussian_pmf(scale) for scale in SCALES])
    bits = -np.log2(pmf[index, symbols.astype(int) - LOW]).sum()
    found = {}
    for precision in (12, 13, 14):
        tables = Tables.gaussian(SCALES, LOW, HIGH, precision)
        size = len(encode_long(symbols, tables, index, 1 << 20))
        found[f"conditional P={precision}"] = round(100 * (8 * size / bits - 1), 4)
        cost = float(tables.cost(symbols, index))
        found[f"tables alone P={precision}"] = round(100 * (cost / bits - 1), 4)
    return found


def seconds(call: Callable[[], Any], clock: Callable[[], float], times: int = 15) -> float:
    """The least of some calls."""
    found = []
    for _ in range(times):
        start = clock()
        call()
        found.append(clock() - start)
    return min(found)


def share_of_the_check() -> dict[str, float]:
    """CPU time of the check over the symbols as part of a whole decode, percent.

    The same call with it and without, in turns; by level, the one in force last.
    """
    rng = np.random.default_rng(8)
    pmf = 0.999 * gaussian_pmf(7.7) + 0.001 / 256
    index = rng.integers(0, len(SCALES), 1 << 20).astype(np.uint8)
    drawn = np.rint(rng.standard_normal(1 << 20) * SCALES[index]).clip(LOW, HIGH)
    messages = {
        "static": (rng.choice(256, 1 << 20, p=pmf) + LOW, Tables.from_pmf(pmf, low=LOW), None),
        "conditional": (drawn, Tables.gaussian(SCALES, LOW, HIGH), index),
    }
    found = {}
    for kind, (symbols, tables, which) in messages.items():
        blob = encode_long(symbols.astype(np.int8), tables, which, BLOCK)
        n, dtype, block, directory = read_head(blob, 1 << 28)
        out, start = np.empty(n, dtype), 32 + directory.nbytes
        given = (tables._native, blob, start, which, block, directory, out)
        for level in native.simd_levels():
            calls = [
                at_level(
                    level, lambda check=check, given=given: native.rans32_decode(*given, check)
                )
                for check in (True, False)
            ]
            shares = []
            for _ in range(25):  # both in one breath, as other load comes and goes
                checked, unchecked = (seconds(call, time.process_time, 4) for call in calls)
                shares.append(100 * (1 - unchecked / checked))
            found[f"{kind} decode {level}"] = round(float(np.median(shares)), 1)
    return found


def two_threads() -> dict[str, float]:
    """What a second thread takes over: the work of one thread over the larger share of two.

    By CPU time, so it holds on a machine that other work keeps busy: the gain that two idle cores
    would give. The best of some calls, as whoever is held up takes fewer blocks. "wall" is the gain
    by the clock on the wall, for machines that are idle.
    """
    rng = np.random.default_rng(7)
    index = rng.integers(0, len(SCALES), 1 << 22).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(1 << 22) * SCALES[index]).clip(LOW, HIGH).astype(np.int8)
    tables = Tables.gaussian(SCALES, LOW, HIGH)
    blob, room = encode_long(symbols, tables, index), np.empty_like(symbols)
    calls = {
        "encode": lambda: encode_long(symbols, tables, index),
        "decode": lambda: decode(blob, tables, index, out=room),
    }
    found = {}
    for name, call in calls.items():
        taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for threads in (1, 2) * 25:
            native.set_num_threads(threads)
            start = time.perf_counter()
            here, everywhere = time.thread_time(), time.process_time()
            call()
            here, everywhere = time.thread_time() - here, time.process_time() - everywhere
            taken[threads].append((max(here, everywhere - here), time.perf_counter() - start))
        native.set_num_threads(1)
        for kind, which in (("", 0), (" wall", 1)):
            alone, together = (min(each[which] for each in taken[k]) for k in (1, 2))
            found[name + kind] = round(alone / together, 2)
    return found


def cold_decode() -> dict[str, dict[str, float]]:
    """Conditional decoding after 16 MiB of other data went through the caches, Msym/s, median."""
    import torch_ans  # noqa: F401

    found, other = {}, np.zeros(16 << 20, np.uint8)
    for length in (100_000, 1_000_000):
        rng = np.random.default_rng(length)
        index = rng.integers(0, len(SCALES), length).astype(np.uint8)
        drawn = rng.standard_normal(length) * SCALES[index]
        symbols = np.rint(drawn).clip(LOW, HIGH).astype(np.int8)
        pmf = np.stack([gaussian_pmf(scale) for scale in SCALES])
        pairs = {
            "otcuda": ours(symbols, Tables.gaussian(SCALES, LOW, HIGH), index),
            "torch_ans": torch_ans_pair(symbols, index, pmf),
        }
        taken = {name: [] for name in pairs}
        for _ in range(15):
            for name, pair in pairs.items():
                other += 1
                taken[name].append(seconds(pair[1], time.process_time, 1))
        rates = {name: length / 1e6 / float(np.median(times)) for name, times in taken.items()}
        found[f"n={length}"] = {name: round(rate, 1) for name, rate in rates.items()}
    return found


def cases() -> Iterator[harness.Case]:
    native.set_num_threads(1)
    for length in (100_000, 1_000_000):
        yield from conditional(length)
        yield from static(length)


if __name__ == "__main__":
    harness.main(
        "rans32",
        cases(),
        packages=("constriction", "torch_ans", "zstandard", "simple_ans", "numpy"),
        simd_level=native.simd_level(),
        excess_percent_one_block=excess_of_large_blocks(),
        check_percent=share_of_the_check(),
        two_threads=two_threads(),
        cold_conditional_decode=cold_decode() if installed("torch_ans") else {},
    )

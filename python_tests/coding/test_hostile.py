# SPDX-License-Identifier: Apache-2.0
"""Messages from anywhere: cuts at every length, mutations, limits before memory, work within n."""

from __future__ import annotations

import contextlib
import importlib.util
import struct
import time
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import otcuda
from otcuda.coding import (
    AdaptiveModel,
    CausalPrior,
    RangeDecoder,
    RangeEncoder,
    Tables,
    compat64,
    decode,
    decode_batch,
    decode_raw,
    encode,
    encode_batch,
    encode_long,
    encode_raw,
)

HARNESS = Path(__file__).resolve().parents[2] / "tools/fuzz/containers.py"
GAUSS = Tables.gaussian(np.geomspace(0.2, 20, 16), -64, 63)
MODEL = AdaptiveModel(4)
PRIOR = CausalPrior.from_float(np.eye(6), [(0, -1)], [(5 * np.eye(5, 6), [0] * 5)])
CDFS = ([[0, 30000, 60000, 65536]], [4], [-1])


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 16, n)
    return np.rint(rng.normal(0, 0.2 * 100 ** (index / 15))).astype(np.int16), index


@pytest.fixture(scope="module")
def mutations():
    """`run(count, seed)` of the harness."""
    if not HARNESS.exists():
        pytest.skip("needs the source tree")
    spec = importlib.util.spec_from_file_location("containers", HARNESS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run


def by_outcome(found):
    totals = Counter()
    for (_, outcome), times in found.items():
        totals[outcome] += times
    return totals


def test_mutations_are_refused_or_harmless(mutations):
    found = mutations(6000, 5)
    assert found["long", "wrong"] == 0
    assert by_outcome(found)["wrong"] <= 1, "2^-16 of the short ones pass"
    for name in ("short", "long", "tables", "batch", "models", "compat64"):
        assert found[name, "refused"] > 30, f"{name} is hardly damaged"
    assert found["short", "unchanged"] + found["long", "unchanged"] < 0.1 * sum(found.values())
    assert min(found[name, "read"] for name in ("tables", "batch", "models", "compat64")) > 0


@pytest.mark.slow
def test_many_mutations_of_containers(mutations):
    """Of the short container 2^-16 may pass, of tiny ones more; of the long one nothing may."""
    found = mutations(300_000, 6)
    assert found["long", "wrong"] == 0
    assert found["short", "wrong"] <= 6, "1.2 to be expected"
    assert found["tiny", "wrong"] <= 24, "one in 280 of one symbol, one in 3,300 of two or three"


def readable():
    """Name, message, and its reader, for every format."""
    symbols, index = drawn(40)
    for lanes in (1, 2, 4, 32):
        yield (
            f"container, {lanes} lanes",
            encode(symbols, GAUSS, index, lanes),
            lambda b: decode(b, GAUSS, index),
        )
    for lanes in (1, 2, 4):
        yield (
            f"raw, {lanes} lanes",
            encode_raw(symbols, GAUSS, index, lanes),
            lambda b, L=lanes: decode_raw(b, GAUSS, index, lanes=L),
        )
    batch = encode_batch([symbols[:30], symbols[30:]], GAUSS, [index[:30], index[30:]])
    parts = [index[:30], index[30:]]
    yield "batch", batch[0], lambda b: decode_batch([b, batch[1]], GAUSS, parts)[0]
    small = Tables.gaussian([0.3, 1.0, 2.0], -6, 5)
    yield "tables", small.to_bytes(), lambda b: Tables.from_bytes(b).frequencies
    encoder = RangeEncoder()
    encoder.adaptive(abs(symbols.reshape(5, 8)) % 16, MODEL)
    encoder.causal(abs(symbols.reshape(5, 8)) % 5, PRIOR)
    encoder.bits([3, 1], 2)
    encoder.exp_golomb([1, 10**6])

    def steps(b):
        decoder = RangeDecoder(b)
        maps = decoder.adaptive(MODEL, (5, 8)), decoder.causal(PRIOR, (5, 8))
        rest = decoder.bits(2, 2), decoder.exp_golomb(2)
        decoder.finish()
        return np.concatenate([part.ravel().astype(np.int64) for part in (*maps, *rest)])

    yield "steps", encoder.finish(), steps
    stream = compat64.RansEncoder().encode_with_indexes([-1, 0, 700, 1], [0] * 4, *CDFS)
    yield (
        "compat64",
        stream,
        lambda b: np.array(compat64.RansDecoder().decode_with_indexes(b, [0] * 4, *CDFS)),
    )


READABLE = list(readable())
CHECKED = ("container", "tables")  # what must refuse every cut


@pytest.mark.parametrize(("name", "message", "read"), READABLE, ids=[name for name, *_ in READABLE])
def test_every_cut_is_refused_or_other_symbols(name, message, read):
    """Without a check only cuts that an encoder may have made are read: as other symbols."""
    whole, read_as_whole = read(message), 0
    for k in range(len(message)):
        with contextlib.suppress(otcuda.CorruptDataError, otcuda.TableMismatchError):
            found = read(message[:k])
            assert not name.startswith(CHECKED), f"cut to {k} of {len(message)} bytes"
            assert found.shape == whole.shape
            read_as_whole += np.array_equal(found, whole)
    assert read_as_whole == 0, "an encoder writes the shortest message"


def long_head(n, block, dtype=5):
    head = struct.pack("<4sBBBBQI4sI", b"OTAC", 1, dtype, 12, 5, n, block, GAUSS.digest[:4], 0)
    return head + zlib.crc32(head).to_bytes(4, "little")


HUGE = 2**28 + 1
REFUSED_BY_SIZE = {
    "short container": lambda: decode(b"\xa7\x81\x80\x80\x80\x01\0\0", GAUSS),
    "long container": lambda: decode(long_head(HUGE, 2**28), GAUSS),
    "long container, 2^63 symbols": lambda: decode(long_head(2**63, 32), GAUSS),
    "long container, max_symbols": lambda: decode(long_head(10**6, 2**28), GAUSS, max_symbols=9),
    "long container, many blocks": lambda: decode(long_head(2**28, 32), GAUSS),
    "shape": lambda: decode_raw(b"", GAUSS, shape=(2**14, 2**15)),
    "shape beyond 2^64": lambda: decode_raw(b"", GAUSS, shape=(2**40, 2**40)),
    "lengths": lambda: decode_batch([b"", b""], GAUSS, lengths=[2**28, 1]),
    "get": lambda: RangeDecoder(b"").get(GAUSS, shape=HUGE),
    "bits": lambda: RangeDecoder(b"").bits(3, HUGE),
    "bit": lambda: RangeDecoder(b"").bit(1, shape=HUGE),
    "adaptive": lambda: RangeDecoder(b"").adaptive(MODEL, (2**14 + 1, 2**14)),
    "causal": lambda: RangeDecoder(b"").causal(PRIOR, (2**14 + 1, 2**14)),
    "tables": lambda: Tables.from_bytes(bytes([1, 12, 1, 0, 0, 0, 0, 0]) + b"\xff\xff\0\0" * 2),
}


@pytest.mark.parametrize("door", REFUSED_BY_SIZE)
def test_sizes_are_refused_before_memory_is_taken(door):
    tracemalloc.start()
    try:
        with pytest.raises((otcuda.LimitError, otcuda.CorruptDataError)):
            REFUSED_BY_SIZE[door]()
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


def cpu_seconds(call):
    """Of the quickest of some calls; a refusal is an end as good as any."""
    taken = []
    for _ in range(5):
        start = time.process_time()
        with contextlib.suppress(otcuda.CorruptDataError):
            call()
        taken.append(time.process_time() - start)
    return min(taken)


WALKS = {
    "slots": Tables.gaussian([3.0], -64, 63),
    "buckets": Tables.gaussian(np.geomspace(0.2, 20, 16), -64, 63, precision=16),
    "crowded buckets": Tables([[1] * 255 + [2**16 - 256]] * 64, precision=16, low=-128),
    "wide": Tables.gaussian([3.0], -64, 63, precision=24),
}


@pytest.mark.parametrize(
    ("walk", "lanes"), [(w, L) for w in WALKS for L in (1, 4, 32) if (w, L) != ("wide", 32)]
)
def test_no_bytes_take_more_work_than_their_symbols(walk, lanes):
    """Noise, zeros and ones against a message of ordinary symbols, all of n symbols."""
    tables, n = WALKS[walk], 40_000
    rng = np.random.default_rng(3)
    index = rng.integers(0, tables.count, n).astype(np.uint8)
    symbols = np.rint(rng.normal(0, 2, n)).astype(np.int8)
    if lanes == 32:
        good = encode_long(symbols, tables, index, n // 32 * 32)
        size = len(good) - 32 - 24

        def read(payload):
            return decode(good[:56] + payload, tables, index)
    else:
        good = encode_raw(symbols, tables, index, lanes)
        size = len(good) - lanes + 1

        def read(payload):
            head = bytes([0] * (lanes - 1))  # all in the last lane; the others read zeros
            return decode_raw(head + payload, tables, index, dtype="int64", lanes=lanes)

    ordinary = cpu_seconds(lambda: decode_raw(encode_raw(symbols, tables, index), tables, index))
    for payload in (rng.bytes(size), b"\0" * (size - 1) + b"\1", b"\xff" * size, b""):
        assert cpu_seconds(lambda p=payload: read(p)) < 8 * ordinary + 0.002

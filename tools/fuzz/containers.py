# SPDX-License-Identifier: Apache-2.0
"""Mutation harness of the containers: python tools/fuzz/containers.py COUNT [SEED].

Flips, cuts, splices and noise in short and long containers, batches, tables and messages of
models. What comes back must be refused by an error of otcuda, or be in bounds; of the containers,
which carry a check, wrong symbols that were taken for good are counted. Half of the long ones get
a CRC that fits the damage, so that what lies behind it is reached. Any other exception ends it.

python_tests/coding/test_hostile.py runs it; so does any build of the module with sanitizers.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

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
    encode,
    encode_batch,
    encode_long,
)

GAUSS = Tables.gaussian(np.geomspace(0.2, 20, 16), -64, 63)
SMALL = Tables.from_weights(
    [50, 30, 10, 9, 1, 0, 3], low=-3
)  # by the search tree where there is one
COMPAT = ([[0, 30000, 60000, 65536]], [4], [-1])
Judge = Callable[[bytes], str]


def drawn(rng: random.Random, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols that GAUSS can code, a few of them escaped, and their index."""
    index = np.array([rng.randrange(16) for _ in range(n)], np.int64)
    symbols = [round(rng.gauss(0, 0.2 * 100 ** (t / 15))) for t in index.tolist()]
    return np.array([s if rng.random() > 0.02 else 99 - s for s in symbols], np.int32), index


def same(decoded: np.ndarray, symbols: np.ndarray) -> str:
    """What a container gave that was not refused."""
    return "unchanged" if np.array_equal(decoded, symbols) else "wrong"


def containers(rng: random.Random) -> Iterator[tuple[str, bytes, Judge]]:
    """Name, a good message, and what a reader says of a bad one."""
    for lanes in (1, 2, 4):
        symbols, index = drawn(rng, rng.randrange(1, 60))
        blob = encode(symbols, GAUSS, index, lanes=lanes)
        name = "short" if len(symbols) > 3 else "tiny"  # whose check notices less
        yield name, blob, lambda b, s=symbols, i=index: same(decode(b, GAUSS, i), s)
    for block in (32, 96):
        symbols, index = drawn(rng, rng.randrange(1, 200))
        blob = encode_long(symbols, GAUSS, index, block)
        yield "long", blob, lambda b, s=symbols, i=index: same(decode(b, GAUSS, i), s)
    symbols = np.array([rng.randrange(-3, 5) for _ in range(2300)], np.int16)
    blob = encode_long(symbols, SMALL, None, 544)  # five blocks, decoded side by side
    yield "long", blob, lambda b, s=symbols: same(decode(b, SMALL), s)


def in_bounds(decoded: np.ndarray, low: int, high: int) -> str:
    """What a message without a check gave."""
    assert decoded.size == 0 or low <= int(decoded.min()) <= int(decoded.max()) <= high
    return "read"


def unchecked(rng: random.Random) -> Iterator[tuple[str, bytes, Judge]]:
    """The same of what carries no check: what is read is in bounds."""
    yield "tables", Tables.gaussian([0.3, 1.0], -4, 4, 6).to_bytes(), _read_tables
    yield "tables", SMALL.to_bytes(), _read_tables
    symbols, index = drawn(rng, 40)
    first, second = encode_batch([symbols[:20], symbols[20:]], GAUSS, [index[:20], index[20:]])
    rows = [index[:20], index[20:]]

    def batch(data: bytes) -> str:
        parts = decode_batch([data, second], GAUSS, rows)
        return in_bounds(np.concatenate(parts), -(2**31), 2**31 - 1)

    yield "batch", first, batch
    model, prior = AdaptiveModel(4), _prior()
    steps = RangeEncoder()
    steps.adaptive(np.array([[rng.randrange(16) for _ in range(6)] for _ in range(5)]), model)
    steps.causal(np.array([[rng.randrange(5) for _ in range(6)] for _ in range(5)]), prior)

    def models(data: bytes) -> str:
        decoder = RangeDecoder(data)
        in_bounds(decoder.adaptive(model, (5, 6)), 0, 15)
        in_bounds(decoder.causal(prior, (5, 6)), 0, 4)
        decoder.finish()
        return "read"

    yield "models", steps.finish(), models
    stream = compat64.RansEncoder().encode_with_indexes([-1, 0, 700, 1] * 8, [0] * 32, *COMPAT)

    def compat(data: bytes) -> str:
        found = compat64.RansDecoder().decode_with_indexes(data, [0] * 32, *COMPAT)
        return in_bounds(np.array(found), -(2**31), 2**31 - 1)

    yield "compat64", stream, compat


def _read_tables(data: bytes) -> str:
    assert Tables.from_bytes(data).to_bytes() == data, "what is taken is canonical"
    return "read"


def _prior() -> CausalPrior:
    codes, layer = np.eye(6)[[0, 1, 2, 3, 4, 5]], (5 * np.eye(5, 6), [0] * 5)
    return CausalPrior.from_float(codes, [(0, -1)], [layer])


def damaged(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Cut, lengthened, spliced with another message, overwritten or flipped."""
    bad = bytearray(data)
    kind = rng.randrange(8)
    if kind == 0:
        del bad[rng.randrange(len(bad)) :]
    elif kind == 1:
        bad += rng.randbytes(rng.randrange(1, 9))
    elif kind == 2:
        at = rng.randrange(len(bad))
        bad[at:] = other[at:]
    elif kind == 3:
        at = rng.randrange(len(bad))
        bad[at : at + 8] = rng.randbytes(rng.randrange(12))
    else:
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] ^= rng.randrange(1, 256)
    if bytes(bad[:4]) == b"OTAC" and len(bad) >= 32 and rng.random() < 0.5:
        n, block = int.from_bytes(bad[8:16], "little"), int.from_bytes(bad[16:20], "little")
        end = 32 + 12 * min(-(-n // max(block, 1)), len(bad))
        bad[28:32] = zlib.crc32(bad[:28] + bad[32:end]).to_bytes(4, "little")
    return bytes(bad)


def run(count: int, seed: int) -> Counter[tuple[str, str]]:
    """How many mutations of each kind of message were refused, unchanged, read or wrong."""
    rng, found = random.Random(seed), Counter()
    while sum(found.values()) < count:
        originals = [*containers(rng), *unchecked(rng)]
        for name, data, judge in originals:
            for _ in range(40):
                bad = damaged(rng, data, rng.choice(originals)[1])
                try:
                    found[name, judge(bad)] += 1
                except (otcuda.CorruptDataError, otcuda.ModelMismatchError):
                    found[name, "refused"] += 1
                except (otcuda.ShapeError, otcuda.LimitError):  # another length
                    found[name, "refused"] += 1
    return found


if __name__ == "__main__":
    for (name, outcome), times in sorted(run(*map(int, (*sys.argv[1:3], 0, 0)[:2])).items()):
        sys.stdout.write(f"{name:9s}{outcome:10s}{times}\n")

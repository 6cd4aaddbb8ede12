# SPDX-License-Identifier: Apache-2.0
"""range64 beside constriction's range coder and torchac: python benchmarks/range64.py.

One thread, whole Python calls; inputs lie ready in the form each library likes best. "conditional":
one of 64 Gaussian tables for each symbol, as in an image codec (constriction evaluates its
quantised Gaussian a symbol; it has no door for one of several tables). "static": one table.
`excess` is bytes over the Shannon information under the unrounded model, in percent. "avx2" and
"portable" are the same at those levels, on which only reading and writing arrays depends. torchac
takes a float distribution a symbol and compiles itself at its first import: it takes part up to
10,000 symbols, where it can be built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import constriction
import harness
import numpy as np

from otcuda._ops import native
from otcuda.coding import RangeEncoder, Tables, decode, decode_raw, encode, encode_raw

LOW, HIGH = -128, 127
SCALES = np.geomspace(0.11, 32, 64)


def gaussian_pmf(scale: float) -> np.ndarray:
    edges = (np.arange(LOW, HIGH + 2) - 0.5) / (scale * math.sqrt(2))
    p = np.diff([0.5 * math.erfc(-edge) for edge in edges])
    return np.maximum(p, 1e-300) / p.sum()


def at_level(level: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        native.set_simd_level(level)
        result = call()
        native.set_simd_level("auto")
        return result

    return run


def at_levels(name: str, call: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """The call at the level in force, and at those below it."""
    below = native.simd_levels()[:-1]
    return {name: call} | {f"{name} {level}": at_level(level, call) for level in below}


def torchac_pair(symbols: np.ndarray, pmf: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Encode and decode by a row of pmf for each symbol; nothing where torchac cannot be built."""
    try:
        import torch
        import torchac
    except (ImportError, OSError, RuntimeError):
        return {}
    torch.set_num_threads(1)
    cdf = np.pad(pmf.cumsum(1), ((0, 0), (1, 0))).clip(0, 1).astype(np.float32)
    rows, values = torch.from_numpy(cdf), torch.from_numpy(symbols.astype(np.int16) - LOW)
    message = torchac.encode_float_cdf(rows, values)
    assert torch.equal(torchac.decode_float_cdf(rows, message), values)
    return {
        "encode": lambda: torchac.encode_float_cdf(rows, values),
        "decode": lambda: torchac.decode_float_cdf(rows, message),
    }


def excess(message: bytes, bits: float) -> float:
    return round(100 * (8 * len(message) / bits - 1), 4)


def conditional(length: int) -> Iterator[harness.Case]:
    rng = np.random.default_rng(length)
    index = rng.integers(0, len(SCALES), length).astype(np.uint8)
    scales = SCALES[index]
    symbols = np.rint(rng.standard_normal(length) * scales).clip(LOW, HIGH).astype(np.int8)
    pmf = np.stack([gaussian_pmf(scale) for scale in SCALES])
    bits = -np.log2(pmf[index, symbols.astype(int) - LOW]).sum()
    tables = Tables.gaussian(SCALES, LOW, HIGH)
    theirs = symbols.astype(np.int32)
    means = np.zeros(length)
    family = constriction.stream.model.QuantizedGaussian(LOW, HIGH)

    def constriction_encode() -> np.ndarray:
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(theirs, family, means, scales)
        return encoder.get_compressed()

    ours, other = encode_raw(symbols, tables, index), constriction_encode()
    four = encode_raw(symbols, tables, index, lanes=4)

    def constriction_decode() -> np.ndarray:
        return constriction.stream.queue.RangeDecoder(other).decode(family, means, scales)

    theirs_too = torchac_pair(symbols, pmf[index]) if length <= 10_000 else {}

    np.testing.assert_array_equal(constriction_decode(), theirs)
    np.testing.assert_array_equal(decode_raw(ours, tables, index, dtype="int8"), symbols)
    notes = {
        "bits_per_symbol": round(bits / length, 4),
        "excess_percent": {
            "otcuda": excess(ours, bits),
            "constriction": excess(other.tobytes(), bits),
        },
    }
    yield harness.Case(
        f"conditional encode n={length}",
        (),
        length / 1e6,
        "Msym/s",
        {
            **at_levels("otcuda", lambda: encode_raw(symbols, tables, index)),
            "constriction": constriction_encode,
            **({"torchac": theirs_too["encode"]} if theirs_too else {}),
        },
        notes,
    )
    yield harness.Case(
        f"conditional decode n={length}",
        (),
        length / 1e6,
        "Msym/s",
        {
            **at_levels("otcuda", lambda: decode_raw(ours, tables, index, dtype="int8")),
            **at_levels(
                "otcuda 4 lanes",
                lambda: decode_raw(four, tables, index, dtype="int8", lanes=4),
            ),
            "constriction": constriction_decode,
            **({"torchac": theirs_too["decode"]} if theirs_too else {}),
        },
        notes,
    )


def static(length: int) -> Iterator[harness.Case]:
    rng = np.random.default_rng(length + 1)
    pmf = 0.999 * gaussian_pmf(7.7) + 0.001 / 256
    symbols = rng.choice(256, length, p=pmf).astype(np.uint8)
    bits = -np.log2(pmf[symbols]).sum()
    tables = Tables.from_pmf(pmf)
    theirs = symbols.astype(np.int32)
    model = constriction.stream.model.Categorical(pmf.astype(np.float32), perfect=False)

    def constriction_encode() -> np.ndarray:
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(theirs, model)
        return encoder.get_compressed()

    ours, other = encode_raw(symbols, tables), constriction_encode()
    blob, four = encode(symbols, tables, lanes=1), encode_raw(symbols, tables, lanes=4)

    def constriction_decode() -> np.ndarray:
        return constriction.stream.queue.RangeDecoder(other).decode(model, length)

    np.testing.assert_array_equal(constriction_decode(), theirs)
    np.testing.assert_array_equal(decode(blob, tables), symbols)
    notes = {
        "bits_per_symbol": round(bits / length, 4),
        "excess_percent": {
            "otcuda": excess(ours, bits),
            "otcuda 4 lanes": excess(four, bits),
            "otcuda with its check": excess(blob, bits),
            "constriction": excess(other.tobytes(), bits),
        },
    }
    yield harness.Case(
        f"static encode n={length}",
        (),
        length / 1e6,
        "Msym/s",
        {
            **at_levels("otcuda", lambda: encode_raw(symbols, tables)),
            "otcuda 4 lanes": lambda: encode_raw(symbols, tables, lanes=4),
            "otcuda with its check": lambda: encode(symbols, tables, lanes=1),
            "constriction": constriction_encode,
        },
        notes,
    )
    yield harness.Case(
        f"static decode n={length}",
        (),
        length / 1e6,
        "Msym/s",
        {
            **at_levels("otcuda", lambda: decode_raw(ours, tables, shape=length, dtype="uint8")),
            **at_levels(
                "otcuda 4 lanes",
                lambda: decode_raw(four, tables, shape=length, dtype="uint8", lanes=4),
            ),
            "otcuda with its check": lambda: decode(blob, tables),
            "constriction": constriction_decode,
        },
        notes,
    )


def excess_bits(length: int, messages: int = 300) -> dict[str, float]:
    """Mean bits a message over the model that both coders really use."""
    rng = np.random.default_rng(length + 2)
    pmf = gaussian_pmf(3.0)
    tables = Tables.from_pmf(pmf, precision=16)
    model = constriction.stream.model.Categorical(pmf.astype(np.float32), perfect=True)
    ours, theirs, uniform = [], [], []
    for _ in range(messages):
        symbols = rng.choice(256, length, p=pmf)
        ours.append(8 * len(encode_raw(symbols, tables)) - tables.cost(symbols))
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(symbols.astype(np.int32), model)
        bits = -np.log2(pmf[symbols]).sum()
        theirs.append(8 * encoder.get_compressed().nbytes - bits)
        indices = RangeEncoder()
        indices.uniform(rng.integers(0, 1000, length), 1000)
        uniform.append(8 * len(indices.finish()) - length * math.log2(1000))
    return {
        "otcuda": round(float(np.mean(ours)), 2),
        "otcuda uniform K=1000": round(float(np.mean(uniform)), 2),
        "constriction": round(float(np.mean(theirs)), 2),
    }


def table_excess(length: int = 200_000) -> dict[str, float]:
    """Cost of the conditional symbols under integer tables over the unrounded model, percent."""
    rng = np.random.default_rng(5)
    index = rng.integers(0, len(SCALES), length)
    symbols = np.rint(rng.standard_normal(length) * SCALES[index]).clip(LOW, HIGH).astype(np.int64)
    pmf = np.stack([gaussian_pmf(scale) for scale in SCALES])
    bits = -np.log2(pmf[index, symbols - LOW]).sum()
    return {
        f"P{precision} {'escape' if escape else 'all symbols'}": round(
            100 * (Tables.from_pmf(pmf, precision, escape, LOW).cost(symbols, index) / bits - 1), 4
        )
        for precision in (12, 14, 16)
        for escape in (False, True)
    }


def cases() -> Iterator[harness.Case]:
    native.set_num_threads(1)
    for length in (1000, 10_000, 100_000, 1_000_000):
        yield from conditional(length)
        yield from static(length)


if __name__ == "__main__":
    over = {f"n={length}": excess_bits(length) for length in (10, 100, 1500)}
    harness.main(
        "range64",
        cases(),
        packages=("constriction", "torchac", "numpy"),
        simd_level=native.simd_level(),
        excess_bits=over,
        table_excess_percent=table_excess(),
    )

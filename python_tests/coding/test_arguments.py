# SPDX-License-Identifier: Apache-2.0
"""Every argument of every function: what cannot be is refused by an error that names it."""

from __future__ import annotations

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
    decode_blocks,
    decode_messages,
    decode_raw,
    encode,
    encode_batch,
    encode_blocks,
    encode_long,
    encode_messages,
    encode_raw,
    upload_messages,
)

TWO = Tables.gaussian([1.0, 5.0], -20, 20)
ONE = Tables([[1, 3]], precision=2, escape=False)
S, INDEX = [0, 1], [0, 1]
SHORT, LONG, RAW = encode(S, TWO, INDEX), encode_long(S, TWO, INDEX), encode_raw(S, TWO, INDEX)
MODEL = AdaptiveModel(3)
LAYER = (np.ones((3, 2), int), [0] * 3, [1] * 3, 1)
CODES, LEFT = np.zeros((4, 2), int), [(0, -1)]
PRIOR = CausalPrior(CODES, LEFT, [LAYER])
CDFS = [[0, 30000, 65536]]

NO_NUMBERS = {
    "str": "x",
    "object": object(),
    "complex": np.zeros(2, complex),
    "objects": np.array([object(), 1]),
    "ragged": [[1], [1, 2]],
    "dates": np.zeros(2, "M8[s]"),
}
INTEGERS = NO_NUMBERS | {"float": 1.5, "NaN": float("nan"), "floats": np.zeros(2)}
LISTED = {k: v for k, v in INTEGERS.items() if k != "ragged"}  # may be of several lengths
WHOLE = INTEGERS | {"None": None, "list": [1, 2], "bytes": b"ab", "huge": 2**70}
SIZES = {k: v for k, v in WHOLE.items() if k not in ("None", "list")}
BYTES = {"None": None, "str": "x", "float": 1.5, "int": -1, "list": [1, 2], "object": object()}
KINDS = BYTES | {"array": np.zeros(2, int), "class": Tables}
SEQUENCES = {"None": None, "str": "x", "float": 1.5, "int": -1, "object": object(), "list": [1, 2]}
LIMITS = {"None": None, "str": "x", "float": 1.5, "NaN": float("nan"), "below 0": -1}


def prior(weights=LAYER[0], bias=LAYER[1], multiplier=LAYER[2], shift=1):
    return CausalPrior(CODES, LEFT, [(weights, bias, multiplier, shift)])


DOORS = {
    "Tables frequencies": (INTEGERS, lambda v: Tables(v)),
    "Tables precision": (WHOLE, lambda v: Tables([1, 3], v, False)),
    "Tables escape": (SEQUENCES, lambda v: Tables([1, 3], 2, v)),
    "Tables low": (WHOLE, lambda v: Tables([1, 3], 2, False, v)),
    "from_weights weights": (INTEGERS, lambda v: Tables.from_weights(v)),
    "from_weights precision": (WHOLE, lambda v: Tables.from_weights([1, 2], v)),
    "from_weights escape": (SEQUENCES, lambda v: Tables.from_weights([1, 2], escape=v)),
    "from_pmf pmf": (NO_NUMBERS, lambda v: Tables.from_pmf(v)),
    "from_counts counts": (INTEGERS, lambda v: Tables.from_counts(v)),
    "gaussian scales": (NO_NUMBERS, lambda v: Tables.gaussian(v, -3, 3)),
    "gaussian low": (WHOLE, lambda v: Tables.gaussian([1.0], v, 3)),
    "laplace high": (WHOLE, lambda v: Tables.laplace([1.0], -3, v)),
    "laplace precision": (WHOLE, lambda v: Tables.laplace([1.0], -3, 3, v)),
    "equiprobable K": (WHOLE, lambda v: Tables.equiprobable(v)),
    "from_bytes data": (BYTES, lambda v: Tables.from_bytes(v)),
    "cost symbols": (INTEGERS, lambda v: TWO.cost(v, INDEX)),
    "cost index": (INTEGERS, lambda v: TWO.cost(S, v)),
    "encode symbols": (INTEGERS, lambda v: encode(v, TWO, INDEX)),
    "encode tables": (KINDS, lambda v: encode(S, v, INDEX)),
    "encode index": (INTEGERS, lambda v: encode(S, TWO, v)),
    "encode lanes": (
        WHOLE,
        lambda v: encode(S, TWO, INDEX, v) if v is not None else encode(S, TWO, INDEX, 3),
    ),
    "encode_long symbols": (INTEGERS, lambda v: encode_long(v, TWO, INDEX)),
    "encode_long tables": (KINDS, lambda v: encode_long(S, v, INDEX)),
    "encode_long index": (INTEGERS, lambda v: encode_long(S, TWO, v)),
    "encode_long block_symbols": (INTEGERS, lambda v: encode_long(S, TWO, INDEX, v)),
    "encode_raw tables": (KINDS, lambda v: encode_raw(S, v, INDEX)),
    "encode_raw lanes": (WHOLE, lambda v: encode_raw(S, TWO, INDEX, v)),
    "decode blob": (BYTES, lambda v: decode(v, TWO, INDEX)),
    "decode tables": (KINDS, lambda v: decode(SHORT, v, INDEX)),
    "decode index": (INTEGERS, lambda v: decode(SHORT, TWO, v)),
    "decode shape": (SIZES, lambda v: decode(SHORT, TWO, INDEX, v)),
    "decode max_symbols": (LIMITS, lambda v: decode(SHORT, TWO, INDEX, max_symbols=v)),
    "decode out": (INTEGERS, lambda v: decode(SHORT, TWO, INDEX, out=v)),
    "decode tables (long)": (KINDS, lambda v: decode(LONG, v, INDEX)),
    "decode index (long)": (INTEGERS, lambda v: decode(LONG, TWO, v)),
    "decode shape (long)": (SIZES, lambda v: decode(LONG, TWO, INDEX, v)),
    "decode max_symbols (long)": (LIMITS, lambda v: decode(LONG, TWO, INDEX, max_symbols=v)),
    "decode out (long)": (INTEGERS, lambda v: decode(LONG, TWO, INDEX, out=v)),
    "decode_raw message": (BYTES, lambda v: decode_raw(v, TWO, INDEX)),
    "decode_raw tables": (KINDS, lambda v: decode_raw(RAW, v, INDEX)),
    "decode_raw shape": (SIZES, lambda v: decode_raw(RAW, ONE, shape=v)),
    "decode_raw dtype": (NO_NUMBERS | LIMITS, lambda v: decode_raw(RAW, TWO, INDEX, dtype=v)),
    "decode_raw max_symbols": (LIMITS, lambda v: decode_raw(RAW, TWO, INDEX, max_symbols=v)),
    "decode_raw lanes": (WHOLE, lambda v: decode_raw(RAW, TWO, INDEX, lanes=v)),
    "encode_batch messages": (LISTED, lambda v: encode_batch(v, TWO, [INDEX])),
    "encode_batch tables": (KINDS, lambda v: encode_batch([S], v, [INDEX])),
    "encode_batch index": (LISTED, lambda v: encode_batch([S], TWO, v)),
    "decode_batch messages": (SEQUENCES, lambda v: decode_batch(v, TWO, [INDEX])),
    "decode_batch tables": (KINDS, lambda v: decode_batch([RAW], v, [INDEX])),
    "decode_batch index": (LISTED, lambda v: decode_batch([RAW], TWO, v)),
    "decode_batch length": (WHOLE, lambda v: decode_batch([RAW], ONE, lengths=[v])),
    "decode_batch dtype": (
        NO_NUMBERS | LIMITS,
        lambda v: decode_batch([RAW], TWO, [INDEX], dtype=v),
    ),
    "decode_batch max_symbols": (
        LIMITS,
        lambda v: decode_batch([RAW], TWO, [INDEX], max_symbols=v),
    ),
    "put symbols": (INTEGERS, lambda v: RangeEncoder().put(v, TWO, INDEX)),
    "put tables": (KINDS, lambda v: RangeEncoder().put(S, v, INDEX)),
    "bits values": (INTEGERS, lambda v: RangeEncoder().bits(v, 3)),
    "bits k": (WHOLE, lambda v: RangeEncoder().bits([0], v)),
    "uniform values": (INTEGERS, lambda v: RangeEncoder().uniform(v, 3)),
    "uniform K": (WHOLE, lambda v: RangeEncoder().uniform([0], v)),
    "bit values": (INTEGERS, lambda v: RangeEncoder().bit(v, 3)),
    "bit p1": (INTEGERS, lambda v: RangeEncoder().bit([0, 1], v)),
    "bit precision": (WHOLE, lambda v: RangeEncoder().bit([0, 1], 1, v)),
    "exp_golomb values": (INTEGERS, lambda v: RangeEncoder().exp_golomb(v)),
    "adaptive symbols": (INTEGERS, lambda v: RangeEncoder().adaptive(v, MODEL)),
    "adaptive model": (KINDS, lambda v: RangeEncoder().adaptive([[0]], v)),
    "causal symbols": (INTEGERS, lambda v: RangeEncoder().causal(v, PRIOR)),
    "causal prior": (KINDS, lambda v: RangeEncoder().causal([[0]], v)),
    "RangeDecoder message": (BYTES, lambda v: RangeDecoder(v)),
    "RangeDecoder max_symbols": (LIMITS, lambda v: RangeDecoder(RAW, v)),
    "get tables": (KINDS, lambda v: RangeDecoder(RAW).get(v, INDEX)),
    "get index": (INTEGERS, lambda v: RangeDecoder(RAW).get(TWO, v)),
    "get shape": (SIZES, lambda v: RangeDecoder(RAW).get(ONE, shape=v)),
    "get dtype": (NO_NUMBERS | LIMITS, lambda v: RangeDecoder(RAW).get(TWO, INDEX, dtype=v)),
    "bits k (decoder)": (WHOLE, lambda v: RangeDecoder(RAW).bits(v)),
    "bits shape": (SIZES, lambda v: RangeDecoder(RAW).bits(3, v)),
    "uniform K (decoder)": (WHOLE, lambda v: RangeDecoder(RAW).uniform(v)),
    "bit p1 (decoder)": (INTEGERS, lambda v: RangeDecoder(RAW).bit(v)),
    "bit precision (decoder)": (WHOLE, lambda v: RangeDecoder(RAW).bit(1, v)),
    "adaptive model (decoder)": (KINDS, lambda v: RangeDecoder(RAW).adaptive(v, (2, 2))),
    "adaptive shape": (WHOLE, lambda v: RangeDecoder(RAW).adaptive(MODEL, (2, v))),
    "causal prior (decoder)": (KINDS, lambda v: RangeDecoder(RAW).causal(v, (2, 2))),
    "causal shape": (WHOLE, lambda v: RangeDecoder(RAW).causal(PRIOR, (2, v))),
    "AdaptiveModel bits": (WHOLE, lambda v: AdaptiveModel(v)),
    "AdaptiveModel contexts": (SEQUENCES, lambda v: AdaptiveModel(3, v)),
    "AdaptiveModel rates": (WHOLE, lambda v: AdaptiveModel(3, rates=(v, 7))),
    "learn symbols": (INTEGERS, lambda v: AdaptiveModel(3).learn(v)),
    "CausalPrior codes": (INTEGERS, lambda v: CausalPrior(v, LEFT, [LAYER])),
    "CausalPrior neighbour": (SEQUENCES, lambda v: CausalPrior(CODES, v, [LAYER])),
    "CausalPrior layer": (SEQUENCES, lambda v: CausalPrior(CODES, LEFT, v)),
    "CausalPrior precision": (WHOLE, lambda v: CausalPrior(CODES, LEFT, [LAYER], v)),
    "CausalPrior weights": (INTEGERS, lambda v: prior(weights=v)),
    "CausalPrior bias": (INTEGERS, lambda v: prior(bias=v)),
    "CausalPrior multiplier": (INTEGERS, lambda v: prior(multiplier=v)),
    "CausalPrior shift": (WHOLE, lambda v: prior(shift=v)),
    "from_float codes": (NO_NUMBERS, lambda v: CausalPrior.from_float(v, LEFT, [LAYER[:2]])),
    "from_float layer": (SEQUENCES, lambda v: CausalPrior.from_float(CODES, LEFT, v)),
    "from_float W": (NO_NUMBERS, lambda v: CausalPrior.from_float(CODES, LEFT, [(v, [0.0] * 3)])),
    "compat64 symbols": (INTEGERS, lambda v: compat(symbols=v)),
    "compat64 indexes": (INTEGERS, lambda v: compat(indexes=v)),
    "compat64 cdfs": (LISTED, lambda v: compat(cdfs=v)),
    "compat64 sizes": (INTEGERS, lambda v: compat(sizes=v)),
    "compat64 offsets": (INTEGERS, lambda v: compat(offsets=v)),
    "set_stream encoded": (BYTES, lambda v: compat64.RansDecoder().set_stream(v)),
    "compat64 cdf_float": (NO_NUMBERS, lambda v: compat64.encode_float_cdf(v, [0])),
    "encode_float_cdf sym": (INTEGERS, lambda v: compat64.encode_float_cdf([[0, 0.5, 1]], v)),
    "decode_float_cdf byte_stream": (
        BYTES,
        lambda v: compat64.decode_float_cdf([[0, 0.5, 1]], v),
    ),
    "encode_blocks symbols": (KINDS, lambda v: encode_blocks(v, TWO, INDEX)),
    "encode_blocks tables": (KINDS, lambda v: encode_blocks(S, v, INDEX)),
    "encode_blocks block_symbols": (WHOLE, lambda v: encode_blocks(S, TWO, INDEX, v)),
    "decode_blocks message": (KINDS, lambda v: decode_blocks(v, TWO, INDEX)),
    "encode_messages symbols": (KINDS, lambda v: encode_messages(v, TWO, [2], INDEX)),
    "encode_messages tables": (KINDS, lambda v: encode_messages(S, v, [2], INDEX)),
    "decode_messages messages": (KINDS, lambda v: decode_messages(v, TWO, INDEX)),
}


def compat(symbols=(0,), indexes=(0,), cdfs=CDFS, sizes=(3,), offsets=(0,)):
    return compat64.RansEncoder().encode_with_indexes(symbols, indexes, cdfs, sizes, offsets)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_is_refused_by_name(door):
    values, call = DOORS[door]
    name = door.split()[1]
    for kind, value in values.items():
        with pytest.raises(otcuda.Error) as caught:
            call(value)
        text = str(caught.value)
        assert name in text, f"{kind}: {text} does not name {name}"
        assert "expected" in text or "takes" in text or "is no" in text, f"{kind}: {text}"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (([b"a"], [2], "float32"), otcuda.ArgumentError, "dtype is 'float32', expected uint8"),
        (([b"a"], [-1], "int32"), otcuda.ArgumentError, "lengths holds -1, expected >= 0"),
        (([b"a"], [0.5], "int32"), otcuda.ArgumentError, "lengths is float64, expected integers"),
        ((["a"], [1], "int32"), otcuda.ArgumentError, r"messages\[0\] is 'a', expected bytes"),
        (([b"a"], [1, 2], "int32"), otcuda.ShapeError, "1 messages, but 2 lengths"),
    ],
)
def test_messages_to_be_uploaded(given, error, text):
    pytest.importorskip("torch")
    with pytest.raises(error, match=text):
        upload_messages(*given, "cpu")


def test_numbers_of_other_libraries_are_numbers():
    np.testing.assert_array_equal(decode(SHORT, TWO, INDEX, np.int32(2)), S)
    assert Tables([1, 3], np.uint8(2), np.bool_(False), np.int64(0)) == ONE
    assert RangeDecoder(RAW, np.int64(5)).bits(np.int8(3), np.int8(1)).shape == (1,)


@pytest.mark.parametrize("lanes", [0, 3, 8, 33])
def test_numbers_of_lanes_are_told(lanes):
    allowed = "1 .. 32" if not 0 < lanes < 33 else "1, 2, 4 or 32"
    with pytest.raises(otcuda.ArgumentError, match=f"lanes is {lanes}, expected {allowed}"):
        encode(S, TWO, INDEX, lanes=lanes)


def test_a_shape_that_is_not_the_index_is_refused_by_both_containers():
    for blob in (SHORT, LONG):
        with pytest.raises(otcuda.ShapeError, match="index has"):
            decode(blob, TWO, INDEX, (2, 1))


def test_states_of_a_model_are_not_wrapped():
    model = AdaptiveModel(3)
    model.counters = model.counters.astype(np.int64) + 2**16
    with pytest.raises(otcuda.ArgumentError, match=r"counters hold a number outside 0 \.\. 65535"):
        RangeEncoder().adaptive([[1]], model)

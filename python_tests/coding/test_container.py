# SPDX-License-Identifier: Apache-2.0
"""The short container: its bytes, its check, and what it says of damage and wrong models."""

from __future__ import annotations

import numpy as np
import pytest
from coding.cases import MESSAGES, numbers
from decoders import range64 as plain
from hypothesis import given, settings
from hypothesis import strategies as st

import otcuda
from otcuda.coding import Tables, decode, encode, encode_raw

GAUSS = Tables.gaussian(np.geomspace(0.2, 20, 16), -64, 63)
HALVES = Tables.equiprobable(2)
PLAIN_GAUSS = plain.read_tables(GAUSS.to_bytes())


def message(seed, length=200):
    index = np.array(numbers(f"{seed} index", length, GAUSS.count))
    symbols = np.array(numbers(f"{seed} symbols", length, 19)) - 9
    return symbols, index


def test_bytes_of_a_small_one():
    # (0+1)*1 + (1+1)*K(1); y = 0x9E3779B1, K(1) = (y ^ y >> 15) | 1 = 0x9E3645DF
    total = 1 + 2 * 0x9E3645DF & 0xFFFFFFFF
    check = (total ^ total >> 16) & 0xFFFF
    blob = encode(np.array([0, 1], np.uint16), HALVES)
    assert blob == b"\xa2\x02" + check.to_bytes(2, "little") + b"\x40"


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_dtype_and_shape_come_back(dtype):
    symbols, index = message("dtype")
    symbols = abs(symbols).astype(dtype)
    decoded = decode(encode(symbols, GAUSS, index), GAUSS, index)
    np.testing.assert_array_equal(decoded, symbols, strict=True)
    square = decode(
        encode(symbols.reshape(10, 20), GAUSS, index.reshape(10, 20)),
        GAUSS,
        index.reshape(10, 20),
    )
    np.testing.assert_array_equal(square, symbols.reshape(10, 20), strict=True)


def test_without_an_index_it_tells_its_length():
    for length in (0, 1, 127, 128, 16_384):
        symbols = np.arange(length) % 2
        blob = encode(symbols, HALVES)
        assert (
            len(blob) - len(encode_raw(symbols, HALVES))
            == (4, 5, 6)[(length > 127) + (length > 16_383)]
        )
        np.testing.assert_array_equal(decode(blob, HALVES), symbols, strict=True)
    assert decode(encode(np.ones((4, 5), int), HALVES), HALVES, shape=(4, 5)).shape == (4, 5)


def test_long_messages_take_more_lanes():
    for length, magic in ((1 << 14, 0xA6), ((1 << 14) + 1, 0xAE), ((1 << 15) + 1, 0xB6)):
        symbols = np.arange(length) % 2
        blob = encode(symbols, HALVES)
        assert blob[0] == magic + 1
        np.testing.assert_array_equal(decode(blob, HALVES), symbols, strict=True)


def test_wrong_tables_and_wrong_index_are_noticed():
    missed = 0
    for seed in range(300):
        symbols, index = message(seed)
        blob = encode(symbols, GAUSS, index)
        frequencies = GAUSS.frequencies.copy()
        t, s = index[0], frequencies[index[0]].argmax()
        frequencies[t, s] -= 1
        frequencies[t, s + 1] += 1
        other = Tables(frequencies, GAUSS.precision, low=-64)
        moved = index.copy()
        moved[seed % 200] = (moved[seed % 200] + 1) % 16
        for tables, i in ((other, index), (GAUSS, moved)):
            try:
                missed += not np.array_equal(decode(blob, tables, i), symbols)
            except otcuda.CorruptDataError:
                continue
    assert missed == 0


def test_the_message_names_all_three_causes():
    symbols, index = message("causes")
    blob = bytearray(encode(symbols, GAUSS, index))
    blob[3] ^= 1
    with pytest.raises(otcuda.CorruptDataError, match="damaged, or tables or index"):
        decode(blob, GAUSS, index)


def test_prefixes_and_flips_are_refused():
    """But for those that leave the symbols as they were: the last bits may be free."""
    free = 0
    for seed in range(3):
        symbols, index = message(seed, 60)
        blob = encode(symbols, GAUSS, index)
        damaged = [blob[:k] for k in range(len(blob))]
        for at in range(1, len(blob)):
            for bit in range(8):
                flipped = bytearray(blob)
                flipped[at] ^= 1 << bit
                damaged.append(bytes(flipped))
        for data in damaged:
            try:
                assert decode(data, GAUSS, index).tolist() == symbols.tolist()
            except (otcuda.CorruptDataError, otcuda.ShapeError):
                continue
            free += 1
    assert free < 3 * 8


def silent_errors(count, seed):
    """Wrong symbols out of `count` mutated containers, taken for good."""
    rng, wrong = np.random.default_rng(seed), 0
    originals = [(*message(f"mutated {k}", 40), k) for k in range(20)]
    blobs = [encode(symbols, GAUSS, index) for symbols, index, _ in originals]
    for k in range(count):
        symbols, index, _ = originals[k % 20]
        data = bytearray(blobs[k % 20])
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(2, len(data)))] ^= int(rng.integers(1, 256))
        try:
            wrong += not np.array_equal(decode(data, GAUSS, index), symbols)
        except otcuda.CorruptDataError:
            continue
    return wrong


def test_mutations_are_not_taken_for_good():
    """2^-16 of them may be."""
    assert silent_errors(5000, 0) < 3


@given(st.sampled_from([0xA5, 0xAD, 0xB5]), st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_judged_as_by_the_plain_decoder(magic, tail):
    data = bytes([magic]) + tail
    try:
        expected = plain.decode(data, PLAIN_GAUSS, [3] * 5)
    except plain.DamagedError:
        expected = None
    try:
        got = decode(data, GAUSS, [3] * 5).tolist()
    except (otcuda.CorruptDataError, otcuda.ShapeError, otcuda.LimitError):
        got = None
    assert got == expected


@pytest.mark.parametrize("case", MESSAGES[:12], ids=lambda case: case.name)
def test_torch_index_gives_a_torch_result(case):
    torch = pytest.importorskip("torch")
    tables, index = case.tables(), case.index()
    symbols = case.symbols(tables)
    decoded = decode(encode(symbols, tables, index), tables, torch.from_numpy(index))
    assert isinstance(decoded, torch.Tensor)
    assert decoded.dtype == torch.int32
    assert decoded.tolist() == symbols.tolist()


@pytest.mark.parametrize(
    ("blob", "error", "message"),
    [
        (b"", otcuda.CorruptDataError, "first byte is not 0xA0"),
        (b"\xb8\x01\0\0\0", otcuda.CorruptDataError, "first byte is not 0xA0"),
        (b"\xa0", otcuda.CorruptDataError, "ends in its head"),
        (b"\xa0\x81", otcuda.CorruptDataError, "ends in its head"),
        (b"\xa0\x01\0", otcuda.CorruptDataError, "ends in its head"),
        (b"\xa0\x81\x00\x00\x00", otcuda.CorruptDataError, "not written canonically"),
        (b"\xa0\xff\xff\xff\xff\xff\x01", otcuda.CorruptDataError, "not written canonically"),
        (b"\xa0\xff\xff\xff\xff\x7f\0\0", otcuda.LimitError, "holds 34359738367 symbols"),
        (b"\xa0\x03\0\0", otcuda.ShapeError, r"holds 3 symbols, asked for \(2,\)"),
    ],
)
def test_bad_heads_are_named(blob, error, message):
    with pytest.raises(error, match=message):
        decode(blob, HALVES, [0, 0])


def test_the_limit_is_checked_before_memory_is_taken():
    huge = b"\xa0\x80\x80\x80\x80\x01\0\0"  # 2^28 symbols in no payload
    with pytest.raises(otcuda.LimitError, match="max_symbols is 1000"):
        decode(huge, HALVES, max_symbols=1000)

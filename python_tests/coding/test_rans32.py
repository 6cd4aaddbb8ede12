# SPDX-License-Identifier: Apache-2.0
"""rans32 and the long container: one bitstream at every level, damage by name, limits, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from coding.cases import MESSAGES, Message, symbols_of
from decoders import range64 as plain_tables
from decoders import rans32 as plain
from gil import lets_others_run
from hypothesis import given, settings
from hypothesis import strategies as st

import otcuda
from otcuda._ops import native
from otcuda.coding import Tables, decode, encode, encode_long
from otcuda.coding.rans32 import read_head

GAUSS = Tables.gaussian(np.geomspace(0.11, 32, 64), -128, 127)
LENGTHS = [0, 1, 31, 32, 33, 63, 64, 1023, 1024, 1025, 1057, 2048, 5000]


def drawn(seed, length, tables=GAUSS):
    return symbols_of(tables, length, seed)


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.name)
def test_levels_write_the_same_bytes_and_both_decoders_read_them(case, simd_level):
    tables, index = case.tables(), case.index()
    symbols = case.symbols(tables)
    blob = encode(symbols, tables, index, lanes=32)
    native.set_simd_level("portable")
    assert encode(symbols, tables, index, lanes=32) == blob
    native.set_simd_level(simd_level)
    np.testing.assert_array_equal(decode(blob, tables, index), symbols, strict=True)
    theirs = plain_tables.read_tables(tables.to_bytes())
    assert plain.decode(blob, theirs, index.tolist()) == symbols.tolist()


@pytest.mark.parametrize("P", [1, 8, 9, 10, 12, 13, 16])
@pytest.mark.parametrize("length", LENGTHS)
def test_round_trip_at_the_borders_of_groups_runs_and_blocks(P, length, simd_level):
    tables = Message(f"border {P}", P, 3, 2 if P == 1 else 200, P > 1, -90, 0).tables()
    symbols, index = drawn(length, length, tables)
    if tables.escape:
        symbols[::17] = 2**31 - 1
        symbols[5::29] = -(2**31)
    for block in (32, 1024, 4096):
        blob = encode_long(symbols, tables, index, block)
        np.testing.assert_array_equal(decode(blob, tables, index), symbols, strict=True)


def test_the_last_words_of_two_blocks_meet_the_vector_loop_at_different_times(simd_level):
    """One block of cheap symbols, one of dear ones: they leave the common loop apart."""
    tables = Tables([[4000, 95, 0], [1, 4093, 1]], precision=12, low=0)
    index = np.zeros(6000, np.uint8)
    symbols = np.r_[np.zeros(3008, int), np.ones(2992, int)]
    symbols[3000::3] = 2  # escapes
    blob = encode_long(symbols, tables, index, 3008)
    np.testing.assert_array_equal(decode(blob, tables, index), symbols)


@pytest.mark.parametrize(("T", "length"), [(1, 5000), (4, 5000), (8, 9000), (8, 1000), (64, 70000)])
def test_every_look_up_gives_the_symbols(T, length, simd_level):
    """By slot, by place (from 2^14 slots on), by bucket (messages too short for either)."""
    tables = Message("look-ups", 12, T, 200, True, -90, 0).tables()
    symbols, index = drawn(T, length, tables)
    symbols[::97] = 1000
    blob = encode_long(symbols, tables, index, 4096)
    np.testing.assert_array_equal(decode(blob, tables, index), symbols)


def small_table(P, kept, escape):
    """Frequencies of every kind, a third of the alphabet without one where there is an escape."""
    total = (1 << P) - escape
    cuts = np.sort(np.random.default_rng(kept).choice(total - 1, kept - 1, replace=False) + 1)
    frequencies = np.diff([0, *cuts, total])
    if escape:
        holed = np.zeros(3 * kept, int)
        holed[np.arange(kept) * 3 // 2 + kept // 3] = frequencies
        frequencies = holed
    return Tables(frequencies, P, bool(escape), low=-7)


@pytest.mark.parametrize("escape", [0, 1])
@pytest.mark.parametrize("kept", [2, 3, 32, 62, 63, 64, 65])
@pytest.mark.parametrize("P", [8, 11, 12, 14, 15])
def test_small_tables_are_decoded_in_registers(P, kept, escape, simd_level):
    """By the search tree of CPUs with VBMI2: up to 64 symbols, the escape among them, P <= 14."""
    native.set_num_threads(1)
    tables = small_table(P, kept, escape)
    symbols, _ = drawn(kept, 4 * 1056 + 500, tables)
    if escape:
        symbols[::50] = 1 << 20
    native.reset_backend_paths()
    for block in (1056, 1600):  # five blocks side by side, and three
        blob = encode_long(symbols, tables, None, block)
        np.testing.assert_array_equal(decode(blob, tables), symbols)
    info = Path("/proc/cpuinfo")
    if simd_level == "avx512" and info.exists() and "avx512_vbmi2" in info.read_text():
        assert ("rans32/avx512_tree" in native.backend_paths()) == (kept + escape <= 64 and P < 15)


def test_damage_in_a_small_table_is_noticed(simd_level):
    native.set_num_threads(1)
    tables = small_table(12, 40, 1)
    symbols, _ = drawn(1, 4000, tables)
    blob = encode_long(symbols, tables, None, 992)
    rng = np.random.default_rng(2)
    for _ in range(300):
        bad = bytearray(blob)
        bad[rng.integers(100, len(bad))] ^= 1 << rng.integers(8)
        with pytest.raises(otcuda.CorruptDataError):
            decode(bytes(bad), tables)


def test_the_level_in_force_ran(simd_level):
    native.reset_backend_paths()
    symbols, index = drawn(1, 5000)
    decode(encode(symbols, GAUSS, index, lanes=32), GAUSS, index)
    assert native.backend_paths()[f"rans32/{simd_level}"]["items"] == 10_000


def test_bytes_do_not_depend_on_threads(threads):
    symbols, index = drawn(2, 100_000)
    blob = encode_long(symbols, GAUSS, index, 4096)
    native.set_num_threads(1)
    assert encode_long(symbols, GAUSS, index, 4096) == blob
    native.set_num_threads(threads)
    np.testing.assert_array_equal(decode(blob, GAUSS, index), symbols)


def test_checks_of_long_arrays_do_not_depend_on_threads(threads):
    """Added up in parts: place i must weigh what it weighs in one piece."""
    symbols = np.random.default_rng(0).integers(0, 256, (1 << 21) + 5, np.uint8)
    i = np.arange(len(symbols), dtype=np.uint32)
    y = i * np.uint32(0x9E3779B1)
    wanted = ((symbols + np.uint32(1)) * ((y ^ y >> 15) | 1)).sum(dtype=np.uint32)
    assert native.symbol_sum(symbols) == wanted


def test_size_is_near_what_the_tables_promise():
    symbols, index = drawn(3, 300_000)
    blob = encode_long(symbols, GAUSS, index, 1 << 19)
    excess = 8 * len(blob) - GAUSS.cost(symbols, index)
    assert 0 < excess < 0.0005 * GAUSS.cost(symbols, index) + 8 * 200


def test_large_arrays_take_the_long_container():
    symbols = np.arange((1 << 18) + 1).astype(np.uint16) % 3
    blob = encode(symbols, Tables.equiprobable(4))
    assert blob[:4] == b"OTAC"
    np.testing.assert_array_equal(decode(blob, Tables.equiprobable(4)), symbols, strict=True)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_dtype_shape_and_out(dtype):
    symbols, index = drawn(4, 3000)
    symbols, index = (abs(symbols) % 128).astype(dtype).reshape(30, 100), index.reshape(30, 100)
    blob = encode(symbols, GAUSS, index, lanes=32)
    np.testing.assert_array_equal(decode(blob, GAUSS, index), symbols, strict=True)
    out = np.zeros((30, 100), np.int16)
    assert decode(blob, GAUSS, index, out=out) is out
    np.testing.assert_array_equal(out, symbols)


def test_out_must_fit():
    blob = encode(np.array([300, 0]), GAUSS, [0, 0])
    with pytest.raises(otcuda.CorruptDataError, match="does not fit uint8"):
        decode(blob, GAUSS, [0, 0], out=np.zeros(2, np.uint8))
    with pytest.raises(otcuda.ShapeError, match="out has shape"):
        decode(blob, GAUSS, [0, 0], out=np.zeros(3, np.int32))
    with pytest.raises(otcuda.ArgumentError, match="out is not an array of integers"):
        decode(blob, GAUSS, [0, 0], out=np.zeros(2))


def test_other_tables_and_another_index_have_names_of_their_own():
    symbols, index = drawn(5, 4000)
    blob = encode(symbols, GAUSS, index, lanes=32)
    frequencies = GAUSS.frequencies.copy()
    s = int(frequencies[7].argmax())
    frequencies[7, s] -= 1
    frequencies[7, s + 1] += 1
    with pytest.raises(otcuda.TableMismatchError, match="was written with tables"):
        decode(blob, Tables(frequencies, 12, low=-128), index)
    named = 0
    for k in range(200):
        moved = index.copy()
        moved[17 * k] = (moved[17 * k] + 1 + k % 60) % 64
        try:
            np.testing.assert_array_equal(decode(blob, GAUSS, moved), symbols)
        except otcuda.IndexMismatchError:
            named += 1
    assert named == 200, "no two of these tables code a symbol alike"


def test_every_prefix_and_every_damaged_byte_is_refused():
    symbols, index = drawn(6, 700)
    symbols[::50] = 999
    blob = encode_long(symbols, GAUSS, index, 320)
    for k in range(len(blob)):
        with pytest.raises((otcuda.CorruptDataError, otcuda.TableMismatchError)):
            decode(blob[:k], GAUSS, index)
        for flip in (1, 0x80, 0xFF):
            data = bytearray(blob)
            data[k] ^= flip
            with pytest.raises(otcuda.Error) as caught:
                decode(data, GAUSS, index)
            if 4 <= k < 20 or 24 <= k < 32 + 36:  # the head but its magic and digest, directory
                assert caught.type in (otcuda.CorruptHeaderError, otcuda.LimitError)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_judged_as_by_the_plain_decoder(data):
    symbols, index = drawn(8, 100)
    blob = bytearray(encode_long(symbols, GAUSS, index, 64))
    for _ in range(data.draw(st.integers(0, 3))):
        blob[data.draw(st.integers(56, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    theirs = plain_tables.read_tables(GAUSS.to_bytes())
    try:
        expected = plain.decode(bytes(blob), theirs, index.tolist())
    except plain.DamagedError:
        expected = None
    try:
        got = decode(blob, GAUSS, index).tolist()
    except otcuda.CorruptDataError:
        got = None
    assert got == expected


def blocks_of(blob):
    n, block = int.from_bytes(blob[8:16], "little"), int.from_bytes(blob[16:20], "little")
    return -(-n // block)


@pytest.mark.parametrize(
    ("n", "small", "large"), [(1 << 16, 1, 1), ((1 << 16) + 1, 2, 2), (3 << 15, 4, 2)]
)
def test_blocks_that_nobody_asked_for(n, small, large):
    """As many as the decoder reads side by side."""
    symbols, one = np.zeros(n, np.uint8), small_table(12, 40, 1)
    assert blocks_of(encode_long(symbols, one)) == small
    assert blocks_of(encode_long(symbols, small_table(12, 64, 1))) == large
    assert blocks_of(encode_long(symbols, GAUSS, symbols)) == large


def test_a_check_is_needed_and_notices():
    """Two symbols of one frequency change places: every state ends as it should."""
    tables = Tables.equiprobable(256)
    symbols = np.arange(64) % 256
    swapped = symbols[::-1].copy()
    ours, theirs = (encode(s, tables, lanes=32) for s in (symbols, swapped))
    mixed = ours[:44] + theirs[44:]  # the directory of one, the block of the other
    with pytest.raises(otcuda.CorruptDataError, match="another check"):
        decode(mixed, tables)


def test_the_check_can_be_left_out_to_see_what_it_costs():
    """What benchmarks/rans32.py compares: symbols that fail their check, with it and without."""
    tables = Tables.equiprobable(256)
    symbols = np.arange(64, dtype=np.int8)
    ours, theirs = (encode(s, tables, lanes=32) for s in (symbols, symbols[::-1].copy()))
    n, dtype, block, directory = read_head(ours, 64)
    out = np.zeros(n, dtype)
    given = (tables._native, theirs, 32 + directory.nbytes, None, block, directory, out)
    with pytest.raises(otcuda.CorruptDataError, match="another check"):
        native.rans32_decode(*given)
    native.rans32_decode(*given, False)
    np.testing.assert_array_equal(out, symbols[::-1])


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_checks_are_those_of_the_documentation_for_every_dtype(dtype, simd_level):
    """Pairs of blocks of two runs and a piece, the last one shorter; with the ends of the dtype."""
    low, high = max(np.iinfo(dtype).min, -(2**31)), min(np.iinfo(dtype).max, 2**31 - 1)
    symbols = np.random.default_rng(3).integers(low, high, 4 * 2144 - 500, dtype, endpoint=True)
    symbols[:4] = symbols[-4:] = low, high, 0, 1
    blob = encode_long(symbols, GAUSS, np.zeros_like(symbols), 2144)
    directory = read_head(blob, symbols.size)[3]
    for k, (_, _, check) in enumerate(directory.tolist()):
        part = symbols[2144 * k : 2144 * (k + 1)].astype(np.int64).astype(np.uint32)
        y = np.arange(len(part), dtype=np.uint32) * np.uint32(0x9E3779B1)
        assert check == ((part + np.uint32(1)) * ((y ^ y >> 15) | 1)).sum(dtype=np.uint32)
    np.testing.assert_array_equal(decode(blob, GAUSS, np.zeros_like(symbols)), symbols, strict=True)


def test_wide_tables_go_by_range64():
    tables = Tables.from_weights([5, 3, 1], precision=20)
    with pytest.raises(otcuda.ArgumentError, match=r"rans32 takes tables of precision 1 \.\. 16"):
        encode_long([0, 1], tables)
    symbols = np.zeros((1 << 18) + 1, np.uint8)
    blob = encode(symbols, tables)
    assert blob[0] == 0xA0 + 8 * 2, "four lanes, uint8"
    np.testing.assert_array_equal(decode(blob, tables), symbols, strict=True)


def test_limits_and_arguments():
    symbols, index = drawn(7, 100)
    blob = encode(symbols, GAUSS, index, lanes=32)
    with pytest.raises(otcuda.LimitError, match="max_symbols is 99"):
        decode(blob, GAUSS, index, max_symbols=99)
    with pytest.raises(otcuda.ShapeError, match="holds 100 symbols"):
        decode(blob, GAUSS, index[:99])
    for block in (0, 31, 33, 2**28 + 32, -32):
        with pytest.raises(otcuda.ArgumentError, match="expected a multiple of 32"):
            encode_long(symbols, GAUSS, index, block)
    with pytest.raises(otcuda.ArgumentError, match="index is missing"):
        encode(symbols, GAUSS, lanes=32)
    with pytest.raises(otcuda.ArgumentError, match=r"index\[3\] is 64"):
        encode(symbols, GAUSS, np.r_[index[:3], 64, index[4:]], lanes=32)
    with pytest.raises(otcuda.ArgumentError, match=r"symbols\[1\] is 9, expected 0 .. 3"):
        encode([0, 9], Tables.equiprobable(4), lanes=32)


def test_the_gil_is_released():
    symbols, index = drawn(9, 100_000)
    blob = encode_long(symbols, GAUSS, index)
    assert lets_others_run(lambda: encode_long(symbols, GAUSS, index))
    assert lets_others_run(lambda: decode(blob, GAUSS, index))


def test_eight_threads_on_one_tables():
    tables = Tables.gaussian(np.geomspace(0.11, 32, 64), -128, 127)  # its look-ups not yet made
    messages = [drawn(seed, 70_000) for seed in range(8)]
    blobs = [encode_long(symbols, GAUSS, index, 8192) for symbols, index in messages]
    results = [None] * 8

    def work(k):
        results[k] = decode(blobs[k], tables, messages[k][1])

    team = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    for (symbols, _), result in zip(messages, results, strict=True):
        np.testing.assert_array_equal(result, symbols)

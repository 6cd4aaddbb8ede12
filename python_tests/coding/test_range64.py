# SPDX-License-Identifier: Apache-2.0
"""range64: round trips, size, steps in any order, damage, limits, threads, kinds of arrays."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from coding.cases import MESSAGES, WIDE, numbers, symbols_of
from decoders import range64 as plain
from gil import lets_others_run
from hypothesis import given, settings
from hypothesis import strategies as st

import otcuda
from otcuda.coding import RangeDecoder, RangeEncoder, Tables, decode_raw, encode_raw

GAUSS = Tables.gaussian(np.geomspace(0.11, 32, 64), -128, 127)


def drawn(seed, length, tables=GAUSS):
    return symbols_of(tables, length, seed)


# --- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 100, 1500])
def test_excess_is_under_three_bits_a_message(length):
    excess = []
    for seed in range(200):
        symbols, index = drawn(seed, length)
        excess.append(8 * len(encode_raw(symbols, GAUSS, index)) - GAUSS.cost(symbols, index))
    assert 0 < np.mean(excess) < 3
    assert max(excess) < 9


@pytest.mark.parametrize("K", [256, 1000, 1024, 100_003])
def test_equiprobable_indices_take_the_bytes_of_their_bits(K):
    for seed in range(50):
        encoder = RangeEncoder()
        encoder.uniform(np.random.default_rng(seed).integers(0, K, 1180), K)
        assert len(encoder.finish()) <= math.ceil(1180 * math.log2(K) / 8)


def test_the_tables_and_the_index_decide_the_bytes():
    """A coder that ignored its model would pass every round trip."""
    symbols, index = drawn(0, 2000)
    symbols = symbols.clip(-128, 127)
    flat = Tables.from_weights(np.ones((64, 256), int), 12, escape=False, low=-128)
    by_model, by_flat = encode_raw(symbols, GAUSS, index), encode_raw(symbols, flat, index)
    shuffled = np.random.default_rng(1).permutation(index)
    assert by_model != by_flat
    assert len(by_model) < 0.5 * len(by_flat)
    assert len(by_flat) == 2000
    assert len(encode_raw(symbols, GAUSS, shuffled)) > 1.3 * len(by_model)


def test_trailing_zeros_are_dropped():
    assert encode_raw([], GAUSS, []) == b""
    ones = Tables.equiprobable(256)
    assert encode_raw([0] * 50, ones) == b""
    assert encode_raw([0, 7, 0, 0, 0], ones) == b"\0\7"
    assert decode_raw(b"\0\7", ones, shape=5).tolist() == [0, 7, 0, 0, 0]


def test_a_carry_runs_through_many_bytes():
    """0.0111...1 + 0.0000...1: the last symbol turns all the bytes before it."""
    encoder, halves = RangeEncoder(), Tables.equiprobable(2)
    lengths = set()
    for k in range(0, 400, 7):
        encoder.uniform(1, 3)  # 1/3 = 0.0101...: neither end of the interval is a round number
        encoder.put([1] + [0] * 3, halves)
        encoder.uniform([65534] * k, 65535)
        encoder.put([1] * 40, halves)
        message = encoder.finish()
        lengths.add(len(message))
        decoder = RangeDecoder(message)
        assert decoder.uniform(3) == 1
        assert decoder.get(halves, shape=4).tolist() == [1, 0, 0, 0]
        assert decoder.uniform(65535, shape=k).tolist() == [65534] * k
        assert decoder.get(halves, shape=40).tolist() == [1] * 40
        decoder.finish()
    assert len(lengths) > 50


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u2"])
@pytest.mark.parametrize("index_dtype", ["u1", "i4", "i8"])
def test_every_integer_dtype(dtype, index_dtype):
    tables = Tables.gaussian([1.0, 5.0], 0, 100)
    symbols, index = drawn(3, 5000, tables)
    reference = encode_raw(symbols, tables, index)
    symbols, index = symbols.astype(dtype), index.astype(index_dtype)
    assert encode_raw(symbols, tables, index) == reference
    wide = np.stack([symbols, symbols]).T  # every second element
    assert encode_raw(wide[:, 0], tables, index) == reference
    decoded = decode_raw(reference, tables, index, dtype=dtype)
    assert decoded.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(decoded, symbols)


@pytest.mark.parametrize("length", [1023, 1024, 1025, 4096 + 17])
def test_lengths_around_a_run(length):
    symbols, index = drawn(length, length)
    message = encode_raw(symbols, GAUSS, index)
    np.testing.assert_array_equal(decode_raw(message, GAUSS, index), symbols)
    encoder = RangeEncoder()
    cut = length // 3
    encoder.put(symbols[:cut], GAUSS, index[:cut])
    encoder.put(symbols[cut:], GAUSS, index[cut:])
    assert encoder.finish() == message


def test_shapes_are_kept():
    symbols, index = drawn(5, 60)
    message = encode_raw(symbols.reshape(3, 4, 5), GAUSS, index.reshape(3, 4, 5))
    assert decode_raw(message, GAUSS, index.reshape(3, 4, 5)).shape == (3, 4, 5)
    one = Tables.gaussian([2.0], -9, 9)
    assert decode_raw(encode_raw(np.ones((2, 3), int), one), one, shape=(2, 3)).shape == (2, 3)
    assert decode_raw(encode_raw(4, one), one, shape=()).shape == ()
    assert decode_raw(encode_raw(np.ones((1,) * 12, int), one), one, shape=1).tolist() == [1]


STEP = st.one_of(
    st.tuples(st.just("bits"), st.integers(0, 63), st.integers(0, 2**63 - 1)),
    st.tuples(st.just("uniform"), st.integers(1, 2**24), st.integers(0, 2**63 - 1)),
    st.tuples(st.just("bit"), st.integers(1, 24), st.integers(0, 2**63 - 1)),
    st.tuples(st.just("exp_golomb"), st.integers(0, 62), st.integers(0, 2**63 - 1)),
    st.tuples(st.just("put"), st.integers(0, 63), st.integers(-300, 300)),
)


@given(st.lists(STEP, max_size=60))
@settings(max_examples=80, deadline=None)
def test_steps_in_any_order_and_the_plain_decoder_agrees(steps):
    encoder, wanted = RangeEncoder(), []
    for kind, k, value in steps:
        if kind == "bits":
            wanted.append(("bits", (k,), value & ((1 << k) - 1)))
            encoder.bits(wanted[-1][2], k)
        elif kind == "uniform":
            wanted.append(("uniform", (k,), value % k))
            encoder.uniform(wanted[-1][2], k)
        elif kind == "bit":
            p1 = 1 + (value >> 1) % max(1, 2**k - 1)
            wanted.append(("bit", (p1, k), value & 1))
            encoder.bit(value & 1, p1, k)
        elif kind == "exp_golomb":
            wanted.append(("exp_golomb", (), value >> k))
            encoder.exp_golomb(value >> k)
        else:
            wanted.append(("symbol", (k,), value))
            encoder.put([value], GAUSS, [k])
    message = encoder.finish()
    ours, theirs = RangeDecoder(message), plain.Decoder(message)
    for kind, arguments, value in wanted:
        if kind == "symbol":
            assert ours.get(GAUSS, arguments).tolist() == [value]
            assert theirs.symbol(PLAIN_GAUSS, *arguments) == value
        else:
            assert getattr(ours, kind)(*arguments) == value
            assert getattr(theirs, kind)(*arguments) == value
    ours.finish()
    theirs.finish()


PLAIN_GAUSS = plain.read_tables(GAUSS.to_bytes())


def test_steps_take_arrays():
    encoder = RangeEncoder()
    p1 = np.array([1, 30000, 65535])
    encoder.bit([0, 1, 1], p1)
    encoder.bit(np.array([[1, 0]]), 7, precision=3)
    encoder.bits([[1, 2], [3, 0]], 2)
    encoder.exp_golomb([0, 10**9])
    decoder = RangeDecoder(bytearray(encoder.finish()))
    assert decoder.bit(p1).tolist() == [0, 1, 1]
    assert decoder.bit(7, precision=3, shape=(1, 2)).tolist() == [[1, 0]]
    assert decoder.bits(2, shape=(2, 2)).tolist() == [[1, 2], [3, 0]]
    assert decoder.exp_golomb(shape=2).tolist() == [0, 10**9]
    decoder.finish()
    assert encoder.finish() == b"", "a finished encoder is as new"


def test_bits_cost_what_their_probability_says():
    rng = np.random.default_rng(0)
    p1 = rng.integers(1, 65536, 20_000)
    bits = (rng.integers(0, 65536, 20_000) < p1).astype(int)
    cost = -np.log2(np.where(bits, p1, 65536 - p1) / 65536).sum()
    encoder = RangeEncoder()
    encoder.bit(bits, p1)
    assert cost < 8 * len(encoder.finish()) < cost + 9
    encoder.bit(1 - bits, p1)
    assert 8 * len(encoder.finish()) > 2 * cost


# --- hostile input --------------------------------------------------------------------------------


def outcome(message, tables, index):
    """Symbols, or None where they are refused; anything else is a failure."""
    try:
        return decode_raw(message, tables, index).tolist()
    except otcuda.CorruptDataError:
        return None


@pytest.mark.parametrize("case", MESSAGES[3:] + WIDE, ids=lambda case: case.name)
def test_prefixes_and_flips_are_symbols_or_a_named_error_in_both_decoders(case):
    length = 60 if case.n < 1000 else 5
    tables, index = case.tables(), case.index()[:length]
    symbols = case.symbols(tables)[:length]
    message = encode_raw(symbols, tables, index)
    theirs = plain.read_tables(tables.to_bytes())
    damaged = [message[:k] for k in range(0, len(message), 1 + len(message) // 8)]
    for at, bit in zip(numbers("at", 8, 10**6), numbers("bit", 8, 8), strict=True):
        flipped = bytearray(message or b"\0")
        flipped[at % len(flipped)] ^= 1 << bit
        damaged.append(bytes(flipped))
    damaged += [message + b"\1", message + b"\0", b"\xff" * 20]
    for data in damaged:
        try:
            expected = plain.decode_raw(data, theirs, index.tolist())
        except plain.DamagedError:
            expected = None
        assert outcome(data, tables, index) == expected


@given(st.binary(max_size=64), st.integers(0, 80), st.integers(0, 63))
@settings(max_examples=120, deadline=None)
def test_any_bytes(data, length, t):
    for tables in (GAUSS, Tables([[0, 3, 0, 4]], precision=3)):
        index = [t % tables.count] * length
        got = outcome(data, tables, index)
        if got is not None:
            assert len(got) == length
            assert outcome(encode_raw(got, tables, index), tables, index) == got


@given(st.binary(max_size=64), st.lists(STEP, max_size=40))
@settings(max_examples=80, deadline=None)
def test_any_steps_on_any_bytes(data, steps):
    decoder = RangeDecoder(data)
    try:
        for kind, k, _ in steps:
            if kind == "bits":
                assert 0 <= decoder.bits(k) < 2**k
            elif kind == "uniform":
                assert 0 <= decoder.uniform(k) < k
            elif kind == "bit":
                assert decoder.bit(1, k) in (0, 1)
            elif kind == "exp_golomb":
                assert 0 <= decoder.exp_golomb() < 2**63
            else:
                assert -(2**31) <= decoder.get(GAUSS, [k])[0] < 2**31
        decoder.finish()
    except otcuda.CorruptDataError:
        pass


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_the_quickest_look_up_reads_any_bytes(lanes):
    """One table of 2^12 slots has an entry more, for the slot that no encoder writes."""
    tables, index = Tables.gaussian([9.0], -60, 60), [0] * 1200
    theirs, rng = plain.read_tables(tables.to_bytes()), np.random.default_rng(lanes)
    symbols, _ = drawn(5, 1200, tables)
    symbols[::400] = 99
    good = encode_raw(symbols, tables, lanes=lanes)
    data = [b"\xff" * k for k in (0, 7, 8, 9, 400)] + [rng.bytes(k) for k in (1, 8, 500, 900)]
    for at in rng.integers(3 * (lanes - 1), len(good), 24):
        flipped = bytearray(good)
        flipped[at] ^= 1 << rng.integers(8)
        data.append(bytes(flipped))
    if lanes > 1:  # lengths in front, so that the lanes are reached
        data = [bytes([0x80, 1] * (lanes - 1)) + each for each in data[:9]] + data[9:]
    for message in [good, *data]:
        try:
            expected = plain.decode_raw(message, theirs, index, lanes)
        except plain.DamagedError:
            expected = None
        try:
            got = decode_raw(message, tables, shape=1200, lanes=lanes).tolist()
        except otcuda.CorruptDataError:
            got = None
        assert got == expected


def test_bytes_to_spare_and_missing_symbols_are_named():
    symbols, index = drawn(1, 100)
    message = encode_raw(symbols, GAUSS, index)
    with pytest.raises(otcuda.CorruptDataError, match="bytes to spare"):
        decode_raw(message, GAUSS, index[:20])
    with pytest.raises(otcuda.CorruptDataError, match="bytes to spare"):
        decode_raw(message + b"\0", GAUSS, index)
    decoder = RangeDecoder(message)
    decoder.get(GAUSS, index[:20])
    with pytest.raises(otcuda.CorruptDataError, match="bytes to spare"):
        decoder.finish()
    with pytest.raises(
        otcuda.CorruptDataError, match=r"symbol among 300 \.\. 300 does not fit uint8"
    ):
        decode_raw(
            encode_raw([300], Tables.gaussian([1.0], 0, 9)),
            Tables.gaussian([1.0], 0, 9),
            shape=1,
            dtype="uint8",
        )


def test_symbols_without_end_stop_at_the_limit():
    certain = Tables([[65536]], precision=16, escape=False)
    assert decode_raw(b"", certain, shape=10**5, dtype="u1").sum() == 0
    with pytest.raises(otcuda.LimitError, match="max_symbols is 268435456"):
        decode_raw(b"", certain, shape=2**40)
    with pytest.raises(otcuda.LimitError, match="max_symbols is 5"):
        decode_raw(b"", certain, [0] * 6, max_symbols=5)
    with pytest.raises(otcuda.LimitError, match="max_symbols is 5"):
        RangeDecoder(b"", max_symbols=5).bits(3, shape=(2, 3))


ONE = Tables([[1, 3]], precision=2, escape=False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: encode_raw([0, 2], ONE),
            otcuda.ArgumentError,
            r"symbols\[1\] is 2, expected 0 \.\. 1 \(no escape\)",
        ),
        (lambda: encode_raw([-1], ONE), otcuda.ArgumentError, r"symbols\[0\] is -1"),
        (
            lambda: encode_raw([2**31], GAUSS, [0]),
            otcuda.ArgumentError,
            r"symbols\[0\] is 2147483648, expected -2147483648",
        ),
        (
            lambda: encode_raw(np.array([2**64 - 1], "u8"), GAUSS, [0]),
            otcuda.ArgumentError,
            "18446744073709551615",
        ),
        (
            lambda: encode_raw([0, 0], GAUSS, [0, 64]),
            otcuda.ArgumentError,
            r"index\[1\] is 64, expected 0 \.\. 63",
        ),
        (lambda: decode_raw(b"", GAUSS, [0, -1]), otcuda.ArgumentError, r"index\[1\] is -1"),
        (lambda: encode_raw([0], GAUSS), otcuda.ArgumentError, "index is missing"),
        (lambda: encode_raw([0.5], ONE), otcuda.ArgumentError, "symbols is float64"),
        (lambda: encode_raw([True], ONE), otcuda.ArgumentError, "symbols is bool"),
        (lambda: encode_raw([0], ONE, [0.0]), otcuda.ArgumentError, "index is float64"),
        (lambda: encode_raw([0, 1], ONE, [0]), otcuda.ShapeError, r"symbols \[2\], index \[1\]"),
        (lambda: decode_raw(b"", ONE), otcuda.ArgumentError, "needs index or shape"),
        (lambda: decode_raw(b"", ONE, shape=-1), otcuda.ShapeError, "sizes of 0 or more"),
        (lambda: decode_raw(b"", ONE, [0], shape=2), otcuda.ShapeError, r"index has \[1\]"),
        (lambda: decode_raw(b"", ONE, [0], dtype="f4"), otcuda.ArgumentError, "dtype is float32"),
        (
            lambda: RangeEncoder().bits([1, 4], 2),
            otcuda.ArgumentError,
            r"values\[1\] is 4, expected 0 \.\. 3",
        ),
        (lambda: RangeEncoder().bits([-1], 63), otcuda.ArgumentError, r"values\[0\] is -1"),
        (lambda: RangeEncoder().bits([1], 64), otcuda.ArgumentError, "k is 64"),
        (lambda: RangeEncoder().uniform([5], 5), otcuda.ArgumentError, r"values\[0\] is 5"),
        (lambda: RangeEncoder().uniform([5], 2**24 + 1), otcuda.ArgumentError, "K is 16777217"),
        (lambda: RangeDecoder(b"").uniform(0), otcuda.ArgumentError, "K is 0"),
        (lambda: RangeEncoder().bit([2], 5), otcuda.ArgumentError, "expected 0 or 1"),
        (lambda: RangeEncoder().bit([1], 0), otcuda.ArgumentError, r"p1\[0\] is 0, expected 1"),
        (lambda: RangeEncoder().bit([1], 256, 8), otcuda.ArgumentError, r"p1\[0\] is 256"),
        (lambda: RangeDecoder(b"").bit(1, 25), otcuda.ArgumentError, "precision is 25"),
        (lambda: RangeEncoder().bit([1, 1], [3, 4, 5]), otcuda.ShapeError, r"p1 has shape \[3\]"),
        (lambda: RangeEncoder().exp_golomb([-1]), otcuda.ArgumentError, "expected 0 or more"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_refused_array_leaves_the_encoder_as_it_was():
    encoder = RangeEncoder()
    encoder.put([1, 1, 0], ONE)
    for bad in (lambda: encoder.put([1, 0, 9], ONE), lambda: encoder.bits([0, 9], 2)):
        with pytest.raises(otcuda.ArgumentError, match="expected 0"):
            bad()
    encoder.put([0], ONE)
    message = encoder.finish()
    assert message == encode_raw([1, 1, 0, 0], ONE)
    decoder = RangeDecoder(message)
    for bad in (lambda: decoder.get(ONE, [0, 1]), lambda: decoder.bit([1, 0])):
        with pytest.raises(otcuda.ArgumentError, match="expected"):
            bad()
    assert decoder.get(ONE, shape=4).tolist() == [1, 1, 0, 0]


def test_failed_allocations_raise_and_leave_nothing():
    from otcuda._ops import native

    symbols, index = drawn(2, 30_000)
    reference = encode_raw(symbols, GAUSS, index)
    before = native.memory_in_use()
    native.fail_allocation(1)
    with pytest.raises(otcuda.LimitError, match="made to fail"):
        encode_raw(symbols, GAUSS, index)
    encoder = RangeEncoder()
    native.fail_allocation(3)
    with pytest.raises(otcuda.LimitError, match="made to fail"):
        encoder.put(symbols, GAUSS, index)
    with pytest.raises(otcuda.ArgumentError, match="failed halfway; start a new one"):
        encoder.finish()
    del encoder
    assert native.memory_in_use() == before
    assert encode_raw(symbols, GAUSS, index) == reference


# --- threads, signals, kinds ----------------------------------------------------------------------


def test_threads_share_tables():
    cases = [drawn(seed, 3000) for seed in range(8)]
    wanted = [encode_raw(symbols, GAUSS, index) for symbols, index in cases]
    failures = []

    def work(k):
        symbols, index = cases[k]
        for _ in range(20):
            message = encode_raw(symbols, GAUSS, index)
            if message != wanted[k] or (decode_raw(message, GAUSS, index) != symbols).any():
                failures.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_one_encoder_serves_one_call_at_a_time():
    encoder, piece = RangeEncoder(), np.tile([1, 0, 1, 1], 2000)
    threads = [threading.Thread(target=encoder.put, args=(piece, ONE)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert encoder.finish() == encode_raw(np.tile(piece, 6), ONE)


def test_the_gil_is_released():
    symbols, index = (np.tile(part, 50) for part in drawn(7, 2000))
    message = encode_raw(symbols, GAUSS, index)
    assert lets_others_run(lambda: encode_raw(symbols, GAUSS, index))
    assert lets_others_run(lambda: decode_raw(message, GAUSS, index))


def test_a_signal_ends_a_long_call_soon():
    certain = Tables([[65536]], precision=16, escape=False)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            decode_raw(b"", certain, shape=2**28, dtype="u1")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 0.5


def test_torch_tensors_and_dlpack_come_back_as_they_went():
    torch = pytest.importorskip("torch")
    symbols, index = drawn(4, 300)
    message = encode_raw(symbols, GAUSS, index)
    assert encode_raw(torch.from_numpy(symbols), GAUSS, torch.from_numpy(index)) == message
    decoded = decode_raw(message, GAUSS, torch.from_numpy(index), dtype="int16")
    assert isinstance(decoded, torch.Tensor)
    assert decoded.dtype == torch.int16
    assert decoded.tolist() == symbols.tolist()

    class Foreign:
        def __dlpack__(self, **options):
            return index.__dlpack__(**options)

        def __dlpack_device__(self):
            return (1, 0)

    assert decode_raw(message, GAUSS, Foreign()).tolist() == symbols.tolist()


def test_torch_is_not_needed():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from otcuda.coding import Tables, encode, decode\n"
        "t = Tables.gaussian([2.0], -9, 9)\n"
        "assert decode(encode([1, -30, 4], t), t).tolist() == [1, -30, 4]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- lanes ----------------------------------------------------------------------------------------

STATIC = Tables.gaussian([9.0], -128, 127)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 1023, 1024, 1025, 40_001])
@pytest.mark.parametrize("tables", [STATIC, GAUSS], ids=["direct", "buckets"])
def test_lanes_round_trip_at_their_borders(lanes, length, tables):
    symbols, index = drawn(length, length, tables)
    symbols[::7] = 300  # escapes, in every lane
    message = encode_raw(symbols, tables, index, lanes)
    np.testing.assert_array_equal(decode_raw(message, tables, index, lanes=lanes), symbols)


def test_wrong_lanes_and_wrong_lengths_are_refused():
    symbols, index = drawn(1, 100)
    message = encode_raw(symbols, GAUSS, index, 4)
    for lanes in (0, 3, 8):
        with pytest.raises(otcuda.ArgumentError, match=f"lanes is {lanes}, expected 1, 2 or 4"):
            encode_raw(symbols, GAUSS, index, lanes)
    for head in (b"", b"\x80", b"\x80\x00\x01\x01", b"\xff\xff\xff\xff\x7f", b"\xff" * 12):
        with pytest.raises(otcuda.CorruptDataError):
            decode_raw(head, GAUSS, index, lanes=4)
    for k in range(len(message)):
        with pytest.raises(otcuda.CorruptDataError):
            decode_raw(message[:k] + b"\0", GAUSS, index, lanes=4)

# SPDX-License-Identifier: Apache-2.0
"""`out=`: results written where the caller wants them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import otcuda
from otcuda.coding import RangeDecoder, Tables, decode, decode_raw, encode, encode_raw

GAUSS = Tables.gaussian([0.4, 3.0, 20.0], low=-64, high=63)


def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    index = rng.integers(0, 3, n).astype(np.uint8)
    return rng.integers(-60, 60, n).astype(np.int8), index


@pytest.mark.parametrize("lanes", [1, 2, 4, 32])
def test_it_may_have_another_dtype_and_any_strides(lanes):
    symbols, index = drawn(3000)
    blob = encode(symbols, GAUSS, index, lanes=lanes)
    swapped = np.zeros(3000, np.dtype(">i4"))
    for out in (np.zeros(3000, np.int64), np.zeros((3000, 2), np.int16)[:, 1], swapped):
        assert decode(blob, GAUSS, index, out=out) is out
        np.testing.assert_array_equal(out, symbols)


@pytest.mark.parametrize("lanes", [4, 32])
def test_no_second_array_is_made(lanes):
    symbols, index = drawn(1 << 20)
    blob, out = encode(symbols, GAUSS, index, lanes=lanes), np.zeros(1 << 20, np.int8)
    decode(blob, GAUSS, index, out=out)
    tracemalloc.start()
    decode(blob, GAUSS, index, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(out, symbols)
    payload = len(blob) if lanes == 4 else 0  # the short container cuts its head off
    assert peak < payload + (1 << 16)


@pytest.mark.parametrize("lanes", [1, 32])
def test_it_gives_the_shape_and_may_be_the_index(lanes):
    symbols, index = drawn(600)
    plain = Tables.laplace([3.0], low=-64, high=63)
    out = np.zeros((20, 30), np.int16)
    decode(encode(symbols, plain, lanes=lanes), plain, out=out)
    np.testing.assert_array_equal(out, symbols.reshape(20, 30))
    both = index.view(np.int8).copy()
    decode(encode(symbols, GAUSS, index, lanes=lanes), GAUSS, both, out=both)
    np.testing.assert_array_equal(both, symbols)


def test_bare_messages_and_pieces():
    symbols, index = drawn(500)
    out = np.zeros(500, np.int32)
    assert decode_raw(encode_raw(symbols, GAUSS, index), GAUSS, index, out=out) is out
    np.testing.assert_array_equal(out, symbols)
    out[:] = 0
    decoder = RangeDecoder(encode_raw(symbols, GAUSS, index))
    decoder.get(GAUSS, index[:200], out=out[:200])
    decoder.get(GAUSS, index[200:], out=out[200:])
    decoder.finish()
    np.testing.assert_array_equal(out, symbols)


class Foreign:
    """An array of a library that nobody knows: DLPack and no more."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def of_kind(kind, values):
    """A copy of the values."""
    values = np.array(values)
    if kind == "torch":
        return pytest.importorskip("torch").from_numpy(values)
    return Foreign(values) if kind == "dlpack" else values


@pytest.mark.parametrize("lanes", [1, 2, 4, 32])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4"])
@pytest.mark.parametrize("kind", ["numpy", "torch", "dlpack"])
def test_every_kind_goes_in_comes_out_and_is_written_to(kind, dtype, lanes):
    """The bytes of NumPy, its dtype back, in the kind of the index, or in `out` of any kind."""

    def made(values):
        return of_kind(kind, values)

    symbols, index = drawn(1500)
    symbols = abs(symbols.astype(np.int32)).astype(dtype)
    symbols[7] = np.iinfo(dtype).max
    blob = encode(made(symbols), GAUSS, made(index), lanes=lanes)
    assert blob == encode(symbols, GAUSS, index, lanes=lanes)
    found = decode(blob, GAUSS, made(index))
    assert type(found).__module__.startswith("torch" if kind == "torch" else "numpy")
    np.testing.assert_array_equal(np.asarray(found), symbols, strict=True)
    room = np.zeros(1500, dtype)
    for given in (made(index), index):
        out = made(room)
        assert decode(blob, GAUSS, given, out=out) is out
        np.testing.assert_array_equal(np.from_dlpack(out), symbols, strict=True)
    if lanes < 32:
        raw, out = encode_raw(made(symbols), GAUSS, made(index), lanes), made(room)
        assert raw == encode_raw(symbols, GAUSS, index, lanes)
        assert decode_raw(raw, GAUSS, made(index), lanes=lanes, out=out) is out
        np.testing.assert_array_equal(np.from_dlpack(out), symbols, strict=True)


@pytest.mark.parametrize("lanes", [1, 32])
@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        ([0, 0], otcuda.ArgumentError, "not an array of integers"),
        (np.zeros(2), otcuda.ArgumentError, "not an array of integers"),
        (np.zeros(3, np.int32), otcuda.ShapeError, "out has shape"),
        (Foreign(np.zeros(2)), otcuda.ArgumentError, "not an array of integers"),
        (np.frombuffer(b"ab", np.uint8), otcuda.ArgumentError, "read-only"),
        (np.zeros(2, np.uint8), otcuda.CorruptDataError, "does not fit uint8"),
    ],
)
def test_what_it_cannot_be(lanes, out, error, text):
    blob = encode([300, 0], GAUSS, [0, 0], lanes=lanes)
    with pytest.raises(error, match=text):
        decode(blob, GAUSS, [0, 0], out=out)

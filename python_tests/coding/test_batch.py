# SPDX-License-Identifier: Apache-2.0
"""Batches: the bytes of a loop over messages, errors by message, limits."""

from __future__ import annotations

import numpy as np
import pytest

import otcuda
from otcuda.coding import Tables, decode_batch, decode_raw, encode_batch, encode_raw

GAUSS = Tables.gaussian(np.geomspace(0.2, 20, 16), -64, 63)


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 300, count)
    index = [rng.integers(0, 16, n) for n in lengths]
    return [rng.integers(-70, 70, n).astype(np.int16) for n in lengths], index


def test_a_batch_is_a_loop(threads):
    messages, index = drawn(200)
    batch = encode_batch(messages, GAUSS, index)
    assert batch == [encode_raw(m, GAUSS, i) for m, i in zip(messages, index, strict=True)]
    for got, wanted in zip(decode_batch(batch, GAUSS, index), messages, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_rows_and_lengths():
    rows, tables = np.arange(60).reshape(3, 20) % 5, Tables.from_weights([5, 4, 3, 2, 1])
    batch = encode_batch(rows, tables)
    assert batch == [encode_raw(row, tables) for row in rows]
    decoded = decode_batch(batch, tables, lengths=[20] * 3, dtype="uint8")
    np.testing.assert_array_equal(decoded, rows.astype(np.uint8), strict=True)
    assert encode_batch([], tables) == []
    assert decode_batch([], tables, lengths=[]) == []
    mixed = [np.array([1], np.uint64), np.array([2], np.int8)]
    assert encode_batch(mixed, tables) == [encode_raw([1], tables), encode_raw([2], tables)]


def test_errors_name_the_message():
    messages, index = drawn(40)
    narrow = Tables.equiprobable(4)
    with pytest.raises(otcuda.ArgumentError, match=r"message 2: symbols\[1\] is 9"):
        encode_batch([[0], [1], [0, 9], [1]], narrow)
    batch = encode_batch(messages, GAUSS, index)
    batch[17] += b"\x01" * 9
    with pytest.raises(otcuda.CorruptDataError, match="message 17: "):
        decode_batch(batch, GAUSS, index)


def test_shapes_and_limits():
    messages, index = drawn(5)
    with pytest.raises(otcuda.ShapeError, match="differ in their lengths"):
        encode_batch(messages, GAUSS, index[:4])
    batch = encode_batch(messages, GAUSS, index)
    with pytest.raises(otcuda.ShapeError, match="5 messages, but 4 lengths"):
        decode_batch(batch, GAUSS, index[:4])
    with pytest.raises(otcuda.ArgumentError, match="needs index or lengths"):
        decode_batch(batch, GAUSS)
    with pytest.raises(otcuda.LimitError, match="max_symbols is 10"):
        decode_batch(batch, GAUSS, index, max_symbols=10)
    assert decode_raw(batch[0], GAUSS, index[0]).tolist() == messages[0].tolist()

# SPDX-License-Identifier: Apache-2.0
"""Many messages in one call: what a loop over `encode_raw` writes, on all threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import (
    SIZE_MAX,
    checked,
    integer_dtype,
    limit,
    raw_bytes,
    several,
    whole,
)
from otcuda.coding.arrays import integers
from otcuda.coding.range64 import MAX_SYMBOLS
from otcuda.coding.tables import Tables
from otcuda.errors import ArgumentError, LimitError, ShapeError


def encode_batch(messages: Sequence[Any], tables: Tables, index: Any = None) -> list[bytes]:
    r"""`encode_raw` of each message, on all threads.

    Args:
        messages: a list of integer arrays of any lengths, or an array whose rows are messages.
        tables: the model of all of them.
        index: for each message the table of each symbol; may be left out for a single table.

    Raises:
        ArgumentError: as `encode_raw`; the message is named by its number.
        ShapeError: a message and its index, or the numbers of them, differ.

    >>> tables = Tables.from_weights([90, 9, 1])
    >>> encode_batch([[0, 0, 1], [2], []], tables)
    [b'\xbb', b'\xfe', b'']
    """
    native = checked("encode_batch", "tables", tables, Tables)._native
    parts = _parts("encode_batch", "messages", messages)
    which = None if index is None else _parts("encode_batch", "index", index)
    if which is not None and [a.size for a in which] != [a.size for a in parts]:
        raise ShapeError("encode_batch: messages and index differ in their lengths")
    ends = np.cumsum([a.size for a in parts], dtype=np.int64)
    byte_ends = np.empty(len(parts), np.int64)
    flat = None if which is None else _joined(which)
    data = _ops.range64_encode_many(native, _joined(parts), flat, ends, byte_ends)
    starts = [0, *byte_ends.tolist()]
    return [data[a:b] for a, b in itertools.pairwise(starts)]


def decode_batch(
    messages: Sequence[bytes],
    tables: Tables,
    index: Any = None,
    lengths: Sequence[int] | None = None,
    dtype: str = "int32",
    max_symbols: int = MAX_SYMBOLS,
) -> list[np.ndarray]:
    """The symbols of each message of `encode_batch`, on all threads.

    Args:
        messages: from `encode_batch`.
        tables: the model they were written with.
        index: as it was when encoding; it gives the lengths.
        lengths: number of symbols of each message, where there is no index.
        dtype: integer dtype of the results.
        max_symbols: limit on all messages together, checked before anything is allocated.

    Raises:
        CorruptDataError: bytes that no encoder writes for so many symbols, by message.
        LimitError: more symbols than `max_symbols`.
        ShapeError: not as many lengths or rows of the index as messages.
    """
    native = checked("decode_batch", "tables", tables, Tables)._native
    messages = [
        raw_bytes("decode_batch", f"messages[{k}]", message)
        for k, message in enumerate(several("decode_batch", "messages", messages))
    ]
    which = None if index is None else _parts("decode_batch", "index", index)
    if which is None and lengths is None:
        raise ArgumentError("decode_batch needs index or lengths: messages do not tell theirs")
    if which is None:
        lengths = several("decode_batch", "lengths", lengths)
        sizes = [whole("decode_batch", "a length", n, 0, SIZE_MAX) for n in lengths]
    else:
        sizes = [a.size for a in which]
    if len(sizes) != len(messages):
        raise ShapeError(f"decode_batch: {len(messages)} messages, but {len(sizes)} lengths")
    if sum(sizes) > limit("decode_batch", max_symbols):
        raise LimitError(f"decode_batch: {sum(sizes)} symbols, max_symbols is {max_symbols}")
    symbols = np.empty(sum(sizes), integer_dtype("decode_batch", dtype))
    ends = np.cumsum(sizes, dtype=np.int64)
    byte_ends = np.cumsum([len(m) for m in messages], dtype=np.int64)
    flat = None if which is None else _joined(which)
    data = b"".join(messages)
    _ops.range64_decode_many(native, data, byte_ends, flat, ends, symbols)
    return np.split(symbols, ends[:-1]) if sizes else []


def _parts(op: str, name: str, arrays: Sequence[Any]) -> list[np.ndarray]:
    return [integers(op, name, array).reshape(-1) for array in several(op, name, arrays)]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array; int64 where dtypes differ, as NumPy would make floats of some."""
    if not parts:
        return np.empty(0, np.int32)
    if len({a.dtype for a in parts}) > 1:
        parts = [a.astype(np.int64) for a in parts]
    return np.concatenate(parts)

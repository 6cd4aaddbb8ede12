# SPDX-License-Identifier: Apache-2.0
"""Messages that describe themselves: the short container of range64, the long one of rans32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding import rans32
from otcuda.coding.arguments import checked, limit, raw_bytes, sizes, whole
from otcuda.coding.arrays import integers, writable
from otcuda.coding.range64 import MAX_SYMBOLS, decode_raw, encode_raw
from otcuda.coding.tables import Tables
from otcuda.errors import ArgumentError, CorruptDataError, LimitError, ShapeError

_MAGIC = 0xA0  # the low three bits name the dtype, the next two the lanes
_LANES = (1, 2, 4)
_MOST = ((1 << 14, 1), (1 << 15, 2), (1 << 18, 4))  # symbols for which so many lanes are enough
_DTYPES = [np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")]


def encode(symbols: Any, tables: Tables, index: Any = None, lanes: int | None = None) -> bytes:
    """A message that describes itself.

    Up to 2^18 symbols go by range64 into a short container, 4 to 6 bytes more than `encode_raw`;
    more go by rans32 into a long one, which tells damage from other tables or another index.
    Tables of a precision over 16 always go by range64.

    The tables and the index do not travel with it: the reader has them.

    Args:
        symbols: integers of any dtype and shape, coded in C order; values are int32.
        tables: the model.
        index: table of each symbol, of the shape of `symbols`; may be left out for a single table.
        lanes: 1, 2 or 4 for the short container, 32 for the long one; left out, by the number of
            symbols.

    Returns:
        A container of docs/coding.md. It must be kept whole.

    Raises:
        ArgumentError: no integers, an index that is no table, a symbol without a code.
        ShapeError: symbols and index of different shapes.

    >>> tables = Tables.from_weights([90, 9, 1])
    >>> blob = encode([0, 0, 1, 0, 2], tables)
    >>> len(blob), decode(blob, tables).tolist()
    (6, [0, 0, 1, 0, 2])
    """
    checked("encode", "tables", tables, Tables)
    size = math.prod(symbols.shape) if _ops.rans32_on_cuda(symbols) else None
    if size is None:
        symbols = integers("encode", "symbols", symbols)
        size = symbols.size
    if lanes is None:
        most_lanes = 32 if tables.precision <= 16 else 4
        lanes = next((few for most, few in _MOST if size <= most), most_lanes)
    if whole("encode", "lanes", lanes, 1, 32) not in (*_LANES, 32):
        raise ArgumentError(f"encode: lanes is {lanes}, expected 1, 2, 4 or 32")
    if lanes == 32:
        return rans32.encode_long(symbols, tables, index)
    symbols = integers("encode", "symbols", symbols)
    payload = encode_raw(symbols, tables, index, lanes)
    kind = _MAGIC | _LANES.index(lanes) << 3 | _DTYPES.index(symbols.dtype)
    return bytes([kind]) + _varint(symbols.size) + _check(symbols) + payload


def decode(
    blob: bytes | bytearray | memoryview,
    tables: Tables,
    index: Any = None,
    shape: int | tuple[int, ...] | None = None,
    max_symbols: int = MAX_SYMBOLS,
    out: Any = None,
) -> Any:
    """The symbols of `encode`, given the same tables and index.

    Damage, other tables or another index are noticed but for one case in 65,536 (short container;
    in 3,300 of two or three symbols, in 280 of one) or 2^32 (long one).

    Args:
        blob: from `encode`.
        tables: the model it was written with.
        index: as it was when encoding; it gives the shape of the result.
        shape: the shape of the result where there is no index; left out, it is flat.
        max_symbols: limit, checked before anything is allocated.
        out: array of integers for the result, in host memory; its dtype and shape hold then. After
            an error it may hold some symbols.

    Returns:
        Symbols in the dtype they had, of the kind of `index`; `out` where it was given.

    Raises:
        TableMismatchError, IndexMismatchError: a long container of other tables or another index.
        CorruptHeaderError: the head of a long container is damaged.
        CorruptDataError: damaged bytes, or other tables or another index than when encoding.
        ShapeError: index or shape do not hold as many symbols as the blob.
        LimitError: more symbols than `max_symbols`.
    """
    checked("decode", "tables", tables, Tables)
    blob = raw_bytes("decode", "blob", blob)
    most = limit("decode", max_symbols)
    if blob.startswith(rans32.MAGIC):
        return rans32.decode_long(blob, tables, index, shape, most, out)
    if not blob or not _MAGIC <= blob[0] < _MAGIC + 24:
        raise CorruptDataError("not a range64 container: the first byte is not 0xA0 .. 0xB7")
    n, at = _read_varint(blob, 1)
    payload = blob[at + 2 :]
    if len(blob) < at + 2:
        raise CorruptDataError("a range64 container that ends in its head")
    if n > most:
        raise LimitError(f"decode: the blob holds {n} symbols, max_symbols is {most}")
    wanted = None if shape is None else sizes("decode", shape)
    if index is not None:
        of_index = integers("decode", "index", index).shape
        if wanted not in (None, of_index):
            raise ShapeError(f"decode: shape is {shape}, but index has {list(of_index)}")
        wanted = of_index
    elif wanted is None:
        wanted = (n,) if out is None else writable("decode", out).shape
    if math.prod(wanted) != n:
        raise ShapeError(f"decode: the blob holds {n} symbols, asked for {wanted}")
    dtype = _DTYPES[blob[0] & 7]
    lanes = _LANES[(blob[0] - _MAGIC) >> 3]
    symbols = decode_raw(payload, tables, index, wanted, dtype, most, lanes, out)
    if _check(integers("decode", "symbols", symbols)) != blob[at : at + 2]:
        raise CorruptDataError(
            "the check of the symbols differs: the blob is damaged, or tables or index are not "
            "those it was written with"
        )
    return symbols


def _check(symbols: np.ndarray) -> bytes:
    total = _ops.symbol_sum(symbols)
    return ((total ^ total >> 16) & 0xFFFF).to_bytes(2, "little")


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low ones first, the high bit says that more follow."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Value and the place behind it; at most five bytes, none of them idle."""
    value = 0
    for k in range(5):
        if at + k >= len(data):
            raise CorruptDataError("a range64 container that ends in its head")
        byte = data[at + k]
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            if byte == 0 and k > 0:
                break
            return value, at + k + 1
    raise CorruptDataError("the length of a range64 container is not written canonically")

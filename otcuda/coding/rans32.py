# SPDX-License-Identifier: Apache-2.0
"""The long container: blocks of rans32, a directory, and what tells damage from a wrong model."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding import device
from otcuda.coding.arguments import checked, whole
from otcuda.coding.arrays import empty_symbols, flat_pair, given_back, integers
from otcuda.coding.tables import Tables
from otcuda.errors import (
    CorruptDataError,
    CorruptHeaderError,
    IndexMismatchError,
    LimitError,
    ShapeError,
    TableMismatchError,
)

MAGIC = b"OTAC"
_HEAD = struct.Struct("<4sBBBBQI4sI")  # then a CRC-32 of these bytes and the directory
_VERSION, _LANES_LOG2 = 1, 5
_DTYPES = [np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")]
_BLOCK_MAX = 1 << 28
_PART = 1 << 18  # symbols of a block that is not asked for
_FOUR = 3 << 15  # from here on four blocks cost less than half a percent at 5 bits a symbol


def encode_long(
    symbols: Any, tables: Tables, index: Any = None, block_symbols: int | None = None
) -> bytes:
    """Symbols in a long container; `encode` with `lanes=32`.

    Symbols on a CUDA device are coded there, to the same bytes.

    Args:
        symbols: integers of any dtype and shape.
        tables: the model.
        index: table of each symbol.
        block_symbols: a multiple of 32; a block costs about 108 bytes and is the unit of threads,
            or of warps: for a device some 8,192 are better. Left out: equal parts of at most
            2^18, two from 2^16 symbols on; four from 3 2^15 on by one table of at most 64 symbols,
            which is then decoded in registers.

    Raises:
        ArgumentError: as `encode`, or `block_symbols` that is none.
        ShapeError: symbols and index of different shapes.
    """
    checked("encode", "tables", tables, Tables)
    on_device = device.can_code(symbols, index)
    if not on_device:
        symbols = integers("encode", "symbols", symbols)
    n = math.prod(symbols.shape)
    if block_symbols is None:
        few = 1 if n <= 1 << 16 else 2 if n < _FOUR or not tables._fits_registers else 4
        blocks = max(-(-n // _PART), few)
        block_symbols = max(-(-n // (32 * blocks)) * 32, 32)
    block_symbols = whole("encode", "block_symbols", block_symbols, -(2**62), 2**62)
    if on_device:
        message = device.encode_blocks(symbols, tables, index, block_symbols)
        directory, blocks = message.host()
        dtype = np.dtype(message.dtype)
        flat_index = None if index is None else integers("encode", "index", index)
    else:
        flat, flat_index = flat_pair("encode", symbols, index)
        directory = np.zeros((-(-n // max(block_symbols, 1)), 3), np.uint32)
        dtype = symbols.dtype
    index_check = _index_check(flat_index)

    def head() -> bytes:
        start = _HEAD.pack(
            MAGIC,
            _VERSION,
            _DTYPES.index(dtype),
            tables.precision,
            _LANES_LOG2,
            n,
            block_symbols,
            tables.digest[:4],
            index_check,
        )
        rows = directory.astype("<u4").tobytes()
        return start + zlib.crc32(start + rows).to_bytes(4, "little") + rows

    if on_device:
        return head() + blocks
    return _ops.rans32_encode(tables._native, flat, flat_index, block_symbols, directory, head)


def decode_long(
    blob: bytes, tables: Tables, index: Any, shape: Any, max_symbols: int, out: Any = None
) -> Any:
    """The inverse; arguments and errors are those of `decode`."""
    n, dtype, block, directory = read_head(blob, max_symbols)
    digest, index_check = blob[20:24], int.from_bytes(blob[24:28], "little")
    if digest != tables.digest[:4]:
        raise TableMismatchError(
            f"decode: the message was written with tables {digest.hex()}, these are "
            f"{tables.digest[:4].hex()}"
        )
    at = 32 + directory.size * 4
    on_device = out is None and index is not None and device.can_code(index, index)
    on_device = on_device and dtype.name in device.DTYPES
    if on_device:
        flat, symbols = index, index  # for its shape
    elif index is None and shape is None and out is None:
        symbols, flat = np.empty(n, dtype), None
    else:
        symbols, flat = empty_symbols("decode", index, shape, dtype, max_symbols, out)
    if (symbols.numel() if on_device else symbols.size) != n:
        raise ShapeError(f"decode: the blob holds {n} symbols, asked for {symbols.shape}")
    try:
        if on_device:
            message = device.upload(blob[at:], directory, n, block, dtype, index)
            return device.decode_blocks(message, tables, index)
        _ops.rans32_decode(tables._native, blob, at, flat, block, directory, symbols.reshape(-1))
    except CorruptDataError as error:
        # Only now, since it costs as much as a check of the symbols.
        if _index_check(None if flat is None else integers("decode", "index", flat)) == index_check:
            raise
        raise IndexMismatchError(
            "decode: index is not the one that the message was written with: whatever computes it "
            "gave other numbers here"
        ) from error
    return given_back(symbols, index, out)


def _index_check(index: np.ndarray | None) -> int:
    return 0 if index is None else _ops.symbol_sum(index)


def read_head(blob: bytes, max_symbols: int) -> tuple[int, np.dtype, int, np.ndarray]:
    """Number of symbols, their dtype, symbols of a block, directory."""
    if len(blob) < 32:
        raise CorruptHeaderError("a rans32 container that ends in its head")
    _, version, dtype, precision, lanes, n, block, _, _ = _HEAD.unpack_from(blob)
    crc = int.from_bytes(blob[28:32], "little")
    blocks = -(-n // block) if block else 0
    if version != _VERSION or dtype > 7 or lanes != _LANES_LOG2:
        raise CorruptHeaderError(f"a rans32 container of version {version}: not known here")
    if not 32 <= block <= _BLOCK_MAX or block % 32 or not 1 <= precision <= 16:
        raise CorruptHeaderError(f"a rans32 container with blocks of {block} symbols")
    if n > max_symbols:
        raise LimitError(f"decode: the blob holds {n} symbols, max_symbols is {max_symbols}")
    if len(blob) < 32 + 12 * blocks:
        raise CorruptHeaderError("a rans32 container that ends in its directory")
    if zlib.crc32(blob[:28] + blob[32 : 32 + 12 * blocks]) != crc:
        raise CorruptHeaderError("the head or the directory of a rans32 container is damaged")
    rows = np.frombuffer(blob, "<u4", 3 * blocks, 32) if blocks else np.empty(0)
    return n, _DTYPES[dtype], block, rows.astype(np.uint32).reshape(blocks, 3)

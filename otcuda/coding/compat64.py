# SPDX-License-Identifier: Apache-2.0
"""Doors for code written for others: CompressAI's `ans` (its bytes), torchac's two functions.

    from otcuda.coding import compat64 as ans        # instead of: from compressai import ans
    from otcuda.coding import compat64 as torchac    # instead of: import torchac

Streams of CompressAI and of `RansEncoder` are the same bytes. Those of `encode_float_cdf` are
range64's, not torchac's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import raw_bytes, several
from otcuda.coding.arrays import floats, integers, like_of
from otcuda.errors import ArgumentError, ShapeError

_Integers = Sequence[int]


class BufferedRansEncoder:
    """Collects symbols of several calls into one stream: `encode_with_indexes`, then `flush`.

    Arguments are lists or arrays of integers: a symbol and the index of its table each, the tables
    as cumulative frequencies from 0 to 65536, of which the first `cdfs_sizes[t]` entries count,
    and the first symbol of each. The last symbol of a table is the sentinel: it stands for all
    outside, which follow in parts of 4 bits.

    Raises:
        ArgumentError: a table that does not rise from 0 to 65536, an index that is no table.
        ShapeError: symbols and indexes differ in length.

    Source: CompressAI 1.2, MIT licence, for the names and the format.
    """

    def __init__(self) -> None:
        self._coder = _ops.NativeCompatEncoder()

    def encode_with_indexes(
        self, symbols: _Integers, indexes: _Integers, cdfs: Any, cdfs_sizes: Any, offsets: Any
    ) -> None:
        """Symbols by their tables."""
        flat, index = _int32("symbols", symbols), _int32("indexes", indexes)
        if flat.shape != index.shape:
            raise ShapeError(f"encode_with_indexes: {flat.size} symbols, but {index.size} indexes")
        self._coder.push(flat, index, *_tables(cdfs, cdfs_sizes, offsets))

    def flush(self) -> bytes:
        """The stream; the encoder is then as new."""
        return self._coder.flush()


class RansEncoder:
    """One call, one stream.

    >>> cdfs, sizes, offsets = [[0, 30000, 60000, 65536]], [4], [-1]
    >>> stream = RansEncoder().encode_with_indexes([-1, 0, 7], [0, 0, 0], cdfs, sizes, offsets)
    >>> RansDecoder().decode_with_indexes(stream, [0, 0, 0], cdfs, sizes, offsets)
    [-1, 0, 7]
    """

    def encode_with_indexes(
        self, symbols: _Integers, indexes: _Integers, cdfs: Any, cdfs_sizes: Any, offsets: Any
    ) -> bytes:
        """The stream of symbols by their tables; arguments as of `BufferedRansEncoder`."""
        encoder = BufferedRansEncoder()
        encoder.encode_with_indexes(symbols, indexes, cdfs, cdfs_sizes, offsets)
        return encoder.flush()


class RansDecoder:
    """Reads a stream at once, or in pieces after `set_stream`.

    Raises:
        CorruptDataError: the stream ends early, or a symbol lies outside int32. Other damage is
            not noticed: the format has no check.
    """

    def __init__(self) -> None:
        self._coder: Any = None

    def set_stream(self, encoded: bytes) -> None:
        """The stream that `decode_stream` reads."""
        self._coder = _ops.NativeCompatDecoder(raw_bytes("set_stream", "encoded", encoded))

    def decode_stream(
        self, indexes: _Integers, cdfs: Any, cdfs_sizes: Any, offsets: Any
    ) -> list[int]:
        """The next symbols of the stream."""
        if self._coder is None:
            raise ArgumentError("decode_stream: no stream; call set_stream first")
        index = _int32("indexes", indexes)
        symbols = np.empty(index.shape, np.int32)
        self._coder.get(index, *_tables(cdfs, cdfs_sizes, offsets), symbols)
        return symbols.tolist()

    def decode_with_indexes(
        self, encoded: bytes, indexes: _Integers, cdfs: Any, cdfs_sizes: Any, offsets: Any
    ) -> list[int]:
        """The symbols of a whole stream."""
        self.set_stream(encoded)
        return self.decode_stream(indexes, cdfs, cdfs_sizes, offsets)


def encode_float_cdf(
    cdf_float: Any, sym: Any, needs_normalization: bool = True, check_input_bounds: bool = False
) -> bytes:
    """Symbols with a cumulative distribution each, as torchac takes them.

    Args:
        cdf_float: [..., L + 1], rising from 0 to 1.
        sym: [...], integers from 0 to L - 1.
        needs_normalization: accepted; frequencies are always made at least 1 of 2^16.
        check_input_bounds: accepted; bounds are always checked.

    Raises:
        ArgumentError: a distribution that falls, or a symbol outside.
        ShapeError: the shapes do not fit.
    """
    cdf, symbols = _cdf_rows(cdf_float), integers("encode_float_cdf", "sym", sym)
    if cdf.shape[:-1] != symbols.shape:
        raise ShapeError(
            f"encode_float_cdf takes cdf_float [..., L + 1], sym [...]; got {list(cdf.shape)}, "
            f"{list(symbols.shape)}"
        )
    flat = _int32("sym", symbols.reshape(-1))
    return _ops.range64_encode_rows(cdf.reshape(-1, cdf.shape[-1]), flat)


def decode_float_cdf(cdf_float: Any, byte_stream: bytes, needs_normalization: bool = True) -> Any:
    """The symbols of `encode_float_cdf`, int16 [...], of the kind of `cdf_float`.

    Both sides must hold the same numbers, bit for bit, or the symbols are wrong unnoticed: float
    tables computed on two machines rarely are. `Tables` are for that.

    Raises:
        CorruptDataError: bytes that no encoder writes for so many symbols.
    """
    cdf, data = _cdf_rows(cdf_float), raw_bytes("decode_float_cdf", "byte_stream", byte_stream)
    symbols = np.empty(cdf.shape[:-1], np.int32)
    rows = cdf.reshape(-1, cdf.shape[-1])
    _ops.range64_decode_rows(rows, data, symbols.reshape(-1))
    return like_of(symbols.astype(np.int16), cdf_float)


def _cdf_rows(cdf_float: Any) -> np.ndarray:
    """[..., L + 1] int32 from 0 to 65536, every step at least 1."""
    cdf = floats("compat64", "cdf_float", cdf_float)
    if cdf.ndim < 1 or not 2 <= cdf.shape[-1] <= 32769:
        raise ShapeError(f"cdf_float is {list(cdf.shape)}, expected [..., 2 to 32769]")
    if not np.isfinite(cdf).all() or (np.diff(cdf, axis=-1) < 0).any():
        raise ArgumentError("cdf_float is not finite or falls somewhere")
    symbols = cdf.shape[-1] - 1
    rows = np.rint(cdf.clip(0, 1) * (65536 - symbols)).astype(np.int32)
    rows += np.arange(symbols + 1, dtype=np.int32)
    rows[..., 0], rows[..., -1] = 0, 65536
    return np.ascontiguousarray(rows)


def _int32(name: str, values: Any) -> np.ndarray:
    array = integers("compat64", name, values).reshape(-1)
    if array.size and (int(array.min()) < -(2**31) or int(array.max()) >= 2**31):
        raise ArgumentError(f"compat64: {name} holds a number outside int32")
    return np.ascontiguousarray(array, np.int32)


def _tables(cdfs: Any, sizes: Any, offsets: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows padded to one width, as lists of lists may be ragged."""
    if not isinstance(cdfs, np.ndarray) and not hasattr(cdfs, "__dlpack__"):
        rows = [
            integers("compat64", "a row of cdfs", row).reshape(-1)
            for row in several("compat64", "cdfs", cdfs)
        ]
        cdfs = np.zeros((len(rows), max(map(len, rows), default=1)), np.int64)
        for row, values in zip(cdfs, rows, strict=True):
            row[: len(values)] = values
    cdf = integers("compat64", "cdfs", cdfs)
    if cdf.ndim != 2:
        raise ShapeError(f"compat64 takes cdfs [T, W]; got {list(cdf.shape)}")
    return (
        _int32("cdfs", cdf).reshape(cdf.shape),
        _int32("sizes", sizes),
        _int32("offsets", offsets),
    )

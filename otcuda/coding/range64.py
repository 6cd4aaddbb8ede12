# SPDX-License-Identifier: Apache-2.0
"""range64: symbols to bytes and back, within 3 bits a message of what the tables promise."""

from __future__ import annotations

from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.adaptive import AdaptiveModel, as_map
from otcuda.coding.arguments import SIZE_MAX, checked, limit, raw_bytes, sizes, whole
from otcuda.coding.arrays import empty_symbols, flat_pair, given_back, integers
from otcuda.coding.causal import CausalPrior
from otcuda.coding.tables import Tables
from otcuda.errors import ArgumentError, ShapeError

MAX_SYMBOLS = 2**28
"""Default limit of a decoder: a message of no bytes at all may stand for any number of symbols."""

_BytesLike = bytes | bytearray | memoryview
_BITS, _COUNT, _PRECISION = (0, 63), (1, 2**24), (1, 24)  # of the steps without tables


def encode_raw(symbols: Any, tables: Tables, index: Any = None, lanes: int = 1) -> bytes:
    """The shortest headerless message: it knows neither its length nor its tables.

    About 2.6 bits over `tables.cost(symbols, index)`, whatever the length. For files that carry a
    check of their own; `encode` writes messages that describe themselves.

    Args:
        symbols: integers of any dtype and shape, coded in C order.
        tables: the model.
        index: table of each symbol, of the shape of `symbols`; may be left out for a single table.
        lanes: 1, 2 or 4. More lanes decode faster; each costs 2.6 bits and its length, 1 to 4
            bytes.

    Returns:
        The message; its trailing zero bytes are dropped, so it must stand last or have its length
        told.

    Raises:
        ArgumentError: no integers, an index that is no table, a symbol without a code.
        ShapeError: symbols and index of different shapes.

    Source: docs/coding.md; Martin, Range encoding, 1979.

    >>> tables = Tables.gaussian([0.5, 2.0], low=-128, high=127)
    >>> message = encode_raw([0, 3, -2, 400], tables, [0, 1, 1, 0])
    >>> len(message)
    6
    >>> decode_raw(message, tables, [0, 1, 1, 0])
    array([  0,   3,  -2, 400], dtype=int32)
    """
    native = checked("encode", "tables", tables, Tables)._native
    return _ops.range64_encode(native, *flat_pair("encode", symbols, index), _lanes(lanes))


def decode_raw(
    message: _BytesLike,
    tables: Tables,
    index: Any = None,
    shape: int | tuple[int, ...] | None = None,
    dtype: str = "int32",
    max_symbols: int = MAX_SYMBOLS,
    lanes: int = 1,
    out: Any = None,
) -> Any:
    """The symbols of `encode_raw`, given the same tables and index.

    Other bytes give other symbols, and an error only where no encoder could have written them: the
    caller checks. The work is bounded by the number of symbols.

    Args:
        message: from `encode_raw`.
        tables: the model it was written with.
        index: as it was when encoding; it gives the shape of the result.
        shape: that shape, where there is no index.
        dtype: integer dtype of the result; every symbol must fit.
        max_symbols: limit, checked before anything is allocated.
        lanes: as they were when encoding.
        out: array of integers for the result, in host memory; its dtype and shape hold then. After
            an error it may hold some symbols.

    Returns:
        Symbols of the kind of `index` (NumPy array, torch tensor on its device); `out` if given.

    Raises:
        CorruptDataError: bytes that no encoder writes for so many symbols.
        LimitError: more symbols than `max_symbols`.
        ArgumentError: an index that is no table, neither index nor shape.
    """
    symbols, flat = empty_symbols("decode", index, shape, dtype, max_symbols, out)
    native = checked("decode", "tables", tables, Tables)._native
    data = raw_bytes("decode", "message", message)
    _ops.range64_decode(native, data, flat, symbols.reshape(-1), _lanes(lanes))
    return given_back(symbols, index, out)


class RangeEncoder:
    """Writes one message in pieces, of different models; what is put first comes out first.

    >>> encoder = RangeEncoder()
    >>> encoder.bits(5, 3)
    >>> encoder.uniform([999, 0], 1000)
    >>> encoder.put([1, 1, 0], Tables([[1, 3]], precision=2, escape=False))
    >>> decoder = RangeDecoder(encoder.finish())
    >>> decoder.bits(3), decoder.uniform(1000, shape=2).tolist()
    (5, [999, 0])
    >>> decoder.get(Tables([[1, 3]], precision=2, escape=False), shape=3).tolist()
    [1, 1, 0]
    >>> decoder.finish()
    """

    def __init__(self) -> None:
        self._coder = _ops.NativeRangeEncoder()

    def put(self, symbols: Any, tables: Tables, index: Any = None) -> None:
        """Symbols by tables, as in `encode_raw`; nothing is coded if one of them has no code."""
        native = checked("put", "tables", tables, Tables)._native
        self._coder.put(native, *flat_pair("put", symbols, index))

    def bits(self, values: Any, k: int) -> None:
        """Integers of k bits each, 0 <= k <= 63."""
        self._coder.bits(_flat("bits", values), whole("bits", "k", k, *_BITS))

    def uniform(self, values: Any, K: int) -> None:
        """Integers from 0 to K - 1 for log2 K bits each, without loss for any K <= 2^24."""
        self._coder.uniform(_flat("uniform", values), whole("uniform", "K", K, *_COUNT))

    def bit(self, values: Any, p1: Any, precision: int = 16) -> None:
        """Zeros and ones; `p1`, an integer or one each, is the chance of a 1 in 2^-precision."""
        values = integers("bit", "values", values)
        p1 = _probabilities(p1, values.shape)
        self._coder.bit(values.reshape(-1), p1, whole("bit", "precision", precision, *_PRECISION))

    def exp_golomb(self, values: Any) -> None:
        """Integers from 0 to 2^63 - 1 for 2 floor(log2(v + 1)) + 1 bits each."""
        self._coder.exp_golomb(_flat("exp_golomb", values))

    def adaptive(self, symbols: Any, model: AdaptiveModel) -> None:
        """A map [h, w] of symbols from 0 to 2^bits - 1, by a model that learns on the way."""
        state = checked("adaptive", "model", model, AdaptiveModel)._state()
        self._coder.adaptive(as_map("adaptive", symbols), state)

    def causal(self, symbols: Any, prior: CausalPrior) -> None:
        """A map [h, w] of symbols from 0 to K - 1, each by what the prior foretells."""
        native = checked("causal", "prior", prior, CausalPrior)._native
        self._coder.causal(as_map("causal", symbols), native)

    def finish(self) -> bytes:
        """The message. The encoder is then as new."""
        return self._coder.finish()


class RangeDecoder:
    """Reads a message of `RangeEncoder` by the same steps.

    A step raises CorruptDataError where no encoder could have written the bytes; without `shape` it
    gives one int, else an int64 array.

    Args:
        message: from `RangeEncoder.finish`.
        max_symbols: limit on the symbols of one call, LimitError above it.
    """

    def __init__(self, message: _BytesLike, max_symbols: int = MAX_SYMBOLS):
        self._coder = _ops.NativeRangeDecoder(raw_bytes("RangeDecoder", "message", message))
        self._limit = limit("RangeDecoder", max_symbols)

    def get(
        self,
        tables: Tables,
        index: Any = None,
        shape: int | tuple[int, ...] | None = None,
        dtype: str = "int32",
        out: Any = None,
    ) -> Any:
        """Symbols by tables, as in `decode_raw`."""
        native = checked("get", "tables", tables, Tables)._native
        symbols, flat = empty_symbols("get", index, shape, dtype, self._limit, out)
        self._coder.get(native, flat, symbols.reshape(-1))
        return given_back(symbols, index, out)

    def bits(self, k: int, shape: int | tuple[int, ...] | None = None) -> Any:
        """Integers of k bits each, 0 <= k <= 63."""
        return self._step("bits", shape, whole("bits", "k", k, *_BITS))

    def uniform(self, K: int, shape: int | tuple[int, ...] | None = None) -> Any:
        """Integers from 0 to K - 1, K <= 2^24."""
        return self._step("uniform", shape, whole("uniform", "K", K, *_COUNT))

    def bit(self, p1: Any, precision: int = 16, shape: int | tuple[int, ...] | None = None) -> Any:
        """Zeros and ones, `p1` as it was when encoding; an array of them gives the shape."""
        p1 = integers("bit", "p1", p1)
        if shape is None and p1.ndim > 0:
            shape = p1.shape
        values = self._room("bit", shape)  # before p1 takes as much
        p1 = _probabilities(p1, values.shape)
        self._coder.bit(values.reshape(-1), p1, whole("bit", "precision", precision, *_PRECISION))
        return int(values) if shape is None else values

    def exp_golomb(self, shape: int | tuple[int, ...] | None = None) -> Any:
        """Integers from 0 to 2^63 - 1."""
        return self._step("exp_golomb", shape)

    def adaptive(self, model: AdaptiveModel, shape: tuple[int, int]) -> np.ndarray:
        """A map of this shape, uint16, by the model as it was when encoding."""
        state = checked("adaptive", "model", model, AdaptiveModel)._state()
        symbols = self._empty_map("adaptive", shape)
        self._coder.adaptive(symbols, state)
        return symbols

    def causal(self, prior: CausalPrior, shape: tuple[int, int]) -> np.ndarray:
        """A map of this shape, uint16, by the prior it was written with."""
        native = checked("causal", "prior", prior, CausalPrior)._native
        symbols = self._empty_map("causal", shape)
        self._coder.causal(symbols, native)
        return symbols

    def _empty_map(self, step: str, shape: Any) -> np.ndarray:
        wanted = sizes(step, shape)
        if len(wanted) != 2:
            raise ShapeError(f"{step}: shape is {shape}, expected (h, w)")
        return empty_symbols(step, None, wanted, "uint16", self._limit)[0]

    def _step(self, step: str, shape: Any, *arguments: Any) -> Any:
        values = self._room(step, shape)
        getattr(self._coder, step)(values.reshape(-1), *arguments)
        return int(values) if shape is None else values

    def _room(self, step: str, shape: Any) -> np.ndarray:
        wanted = () if shape is None else shape
        return empty_symbols(step, None, wanted, "int64", self._limit)[0]

    def finish(self) -> None:
        """To be called after the last symbol: CorruptDataError where bytes are left over."""
        self._coder.finish()


def _lanes(lanes: Any) -> int:
    if whole("range64", "lanes", lanes, 0, SIZE_MAX) not in (1, 2, 4):
        raise ArgumentError(f"range64: lanes is {lanes}, expected 1, 2 or 4")
    return lanes


def _flat(step: str, values: Any) -> np.ndarray:
    return integers(step, "values", values).reshape(-1)


def _probabilities(p1: Any, shape: Any) -> np.ndarray:
    """`p1` as one integer for each of `shape`."""
    p1 = integers("bit", "p1", p1)
    try:
        return np.ascontiguousarray(np.broadcast_to(p1, shape)).reshape(-1)
    except ValueError:
        raise ShapeError(f"bit: p1 has shape {list(p1.shape)}, values {shape}") from None

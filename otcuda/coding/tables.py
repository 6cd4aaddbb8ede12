# SPDX-License-Identifier: Apache-2.0
"""Integer frequency tables: the models of the entropy coder, equal on every machine."""

from __future__ import annotations

import hashlib
import math
import struct
from functools import cached_property
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import flag, raw_bytes, whole
from otcuda.coding.arrays import floats, integers
from otcuda.errors import ArgumentError, CorruptDataError, ShapeError

_HEAD = struct.Struct("<BBBBiII")  # version, precision, flags, 0, low, T, n
_VERSION = 1
_ESCAPE = 1
_PRECISION_MAX = 24
_INT32 = (-(2**31), 2**31 - 1)


class Tables:
    """T immutable tables over the symbols `low` .. `low + n - 1`, in units of 2^-precision.

    Without escape every frequency is at least 1 and a table sums to 2^precision. With escape a
    table sums to one less: the last unit is the escape's, a frequency of 0 marks a symbol that is
    coded behind it (for 1 + log2(n + 1) bits and the precision), and so is every other int32.

    Tables are built once, where a model is trained, and stored (`to_bytes`); they are the same
    integers everywhere. Any number of threads may use one.

    Args:
        frequencies: [T, n] or [n], integers.
        precision: 1 to 24; above 16 for range64 only, which then searches every symbol.
        escape: whether the last unit belongs to the escape.
        low: the first symbol.

    Raises:
        ArgumentError: a sum that is not exact, or a limit passed: T and n at most 65536,
            T n at most 2^22.
        ShapeError: frequencies of more than two dimensions.

    Source: docs/coding.md.

    >>> tables = Tables([[1, 2, 12]], precision=4)
    >>> tables
    Tables(T=1, n=3, low=0, precision=4, escape=True)
    >>> Tables.from_bytes(tables.to_bytes()) == tables
    True
    """

    def __init__(self, frequencies: Any, precision: int = 12, escape: bool = True, low: int = 0):
        rows = _rows("Tables", "frequencies", frequencies)
        self._precision = whole("Tables", "precision", precision, 1, _PRECISION_MAX)
        self._escape = flag("Tables", "escape", escape)
        self._low = whole("Tables", "low", low, *_INT32)
        self._frequencies = rows.copy()
        self._frequencies.flags.writeable = False
        self._images: dict[Any, Any] = {}  # by device, as coding.device makes them
        self._native = _ops.NativeTables(
            self._frequencies, self._low, self._precision, self._escape
        )

    @classmethod
    def from_weights(
        cls, weights: Any, precision: int = 12, escape: bool = True, low: int = 0
    ) -> Tables:
        """The tables with the shortest code for symbols that occur with these weights.

        Integer frequencies f_s >= 1 that maximise sum_s w_s log2 f_s exactly (ties to the lower
        symbol). With escape, symbols that a slot of their own would not pay for get no frequency,
        those below 1.5 / b slots' worth, b the bits of n: the escape is meant for what is rare.

        Args:
            weights: [T, n] or [n], integers from 0 to 2^32 - 1; a row needs one above 0.
            precision: 1 to 24; n at most 2^precision without escape.
            escape: whether rare symbols share the last unit.
            low: the first symbol.

        Raises:
            ArgumentError: a weight out of bounds, a row without weight, too many symbols.

        >>> Tables.from_weights([6, 1, 1], precision=3, escape=False).frequencies.tolist()
        [[6, 1, 1]]
        """
        rows = _rows("from_weights", "weights", weights)
        precision = whole("from_weights", "precision", precision, 1, _PRECISION_MAX)
        escape = flag("from_weights", "escape", escape)
        return cls(_ops.quantise_weights(rows, precision, escape), precision, escape, low)

    @classmethod
    def from_pmf(cls, pmf: Any, precision: int = 12, escape: bool = True, low: int = 0) -> Tables:
        """`from_weights` of probabilities, [T, n] or [n], float, of any scale a row.

        They are rounded to integers of 31 bits: a step for where models are made, not for where
        messages are read.

        Raises:
            ArgumentError: a probability that is negative or not finite, a row of zeros.
        """
        p = np.atleast_2d(floats("from_pmf", "pmf", pmf))
        _check_2d("from_pmf", "pmf", p)
        if not np.isfinite(p).all() or (p < 0).any():
            raise ArgumentError("from_pmf: pmf holds a probability that is negative or not finite")
        largest = p.max(1, keepdims=True)
        if (largest <= 0).any():
            raise ArgumentError(f"from_pmf: row {int(largest.argmin())} of pmf is all zeros")
        weights = np.rint(p / largest * (2**31 - 1)).astype(np.uint32)
        return cls.from_weights(weights, precision, escape, low)

    @classmethod
    def from_counts(
        cls, counts: Any, precision: int = 12, escape: bool = True, low: int = 0
    ) -> Tables:
        """`from_weights` of how often symbols occurred, [T, n] or [n], integers of any size.

        The masses of OT cells are such counts: `from_counts(cell_mass(index, N))`. A row whose
        counts reach 2^32 is halved until they do not, so that small counts may become 0.

        Raises:
            ArgumentError: a negative count, or a row of zeros.

        >>> Tables.from_counts([3 << 40, 1 << 40], precision=2, escape=False).frequencies.tolist()
        [[3, 1]]
        """
        rows = np.atleast_2d(integers("from_counts", "counts", counts))
        _check_2d("from_counts", "counts", rows)
        if int(rows.min()) < 0:
            raise ArgumentError(f"from_counts: counts holds {int(rows.min())}, expected 0 or more")
        halvings = [max(int(most).bit_length() - 32, 0) for most in rows.max(1)]
        rows = rows.astype(np.uint64) >> np.array(halvings, np.uint64)[:, None]
        return cls.from_weights(rows, precision, escape, low)

    @classmethod
    def gaussian(
        cls, scales: Any, low: int, high: int, precision: int = 12, escape: bool = True
    ) -> Tables:
        """Tables of normal variables of mean 0, rounded to integers: one for each scale.

        Made by integer arithmetic only, so equal on every machine.

        Args:
            scales: standard deviations, [T], from 1/32 to 65536; rounded to 2^-16.
            low: first symbol, at most 0.
            high: last symbol, at least 0.
            precision: 1 to 24.
            escape: whether rare symbols, and all beyond low .. high, are coded behind the escape.

        Raises:
            ArgumentError: a scale or an alphabet out of bounds.
        """
        return cls._of_density("gaussian", scales, low, high, precision, escape)

    @classmethod
    def laplace(
        cls, scales: Any, low: int, high: int, precision: int = 12, escape: bool = True
    ) -> Tables:
        """The same of Laplace variables; a scale is the mean of |x|."""
        return cls._of_density("laplace", scales, low, high, precision, escape)

    @classmethod
    def _of_density(
        cls, density: str, scales: Any, low: int, high: int, precision: int, escape: bool
    ) -> Tables:
        scales = np.atleast_1d(floats(density, "scales", scales))
        low, high = whole(density, "low", low, *_INT32), whole(density, "high", high, *_INT32)
        if scales.ndim != 1:
            raise ShapeError(f"{density} takes scales [T]; got {list(scales.shape)}")
        if not np.isfinite(scales).all() or not ((scales >= 1 / 32) & (scales <= 65536)).all():
            raise ArgumentError(f"{density}: scales lie outside 1/32 .. 65536")
        n = high - low + 1
        if not (low <= 0 <= high and n <= 65536):
            raise ArgumentError(
                f"{density}: the alphabet is {low} .. {high}, expected at most 65536 symbols with 0"
            )
        if len(scales) * n > 2**22:
            raise ArgumentError(f"{density}: {len(scales)} tables of {n} symbols exceed 2^22")
        scale_q16 = np.rint(scales * 65536).astype(np.int64)
        weights = _ops.density_weights(density, scale_q16, low, n)
        return cls.from_weights(weights, precision, escape, low)

    @classmethod
    def equiprobable(cls, K: int, low: int = 0) -> Tables:
        """One table of K equal frequencies, without escape; as equal as 16 bits allow.

        Exact for powers of two. `RangeEncoder.uniform` is exact for every K.

        Raises:
            ArgumentError: K outside 1 to 65536.
        """
        K = whole("equiprobable", "K", K, 1, 65536)
        precision = max(1, K.bit_length() - 1) if K & (K - 1) == 0 else 16
        return cls.from_weights(np.ones(K, np.uint32), precision, escape=False, low=low)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Tables:
        """The tables that `to_bytes` wrote; everything is checked.

        Raises:
            CorruptDataError: bytes that `to_bytes` does not write.
        """
        data = raw_bytes("from_bytes", "data", data)
        if len(data) < _HEAD.size:
            raise CorruptDataError(f"tables of {len(data)} bytes, shorter than their head")
        version, precision, flags, zero, low, T, n = _HEAD.unpack_from(data)
        if version != _VERSION or flags & ~_ESCAPE or zero:
            raise CorruptDataError(f"tables of version {version}, flags {flags}: not known here")
        stored = _stored_as(precision)
        size = _HEAD.size + T * n * stored.itemsize
        if size != len(data):
            raise CorruptDataError(f"tables [{T}, {n}] in {len(data)} bytes, expected {size}")
        frequencies = np.frombuffer(data, stored, offset=_HEAD.size).astype(np.uint32)
        frequencies = frequencies.reshape(T, n)
        if precision == 16 and n == 1 and not flags:
            frequencies[frequencies == 0] = 65536
        try:
            return cls(frequencies, precision, bool(flags & _ESCAPE), low)
        except (ArgumentError, ShapeError) as error:
            raise CorruptDataError(f"tables are damaged: {error}") from error

    def to_bytes(self) -> bytes:
        """The canonical bytes of docs/coding.md: equal tables, equal bytes."""
        head = _HEAD.pack(
            _VERSION, self.precision, _ESCAPE * self.escape, 0, self.low, self.count, self.symbols
        )
        return head + self._frequencies.astype(_stored_as(self.precision)).tobytes()

    @cached_property
    def digest(self) -> bytes:
        """BLAKE2b-256 of `to_bytes()`, 32 bytes: the name of a model."""
        return hashlib.blake2b(self.to_bytes(), digest_size=32).digest()

    @property
    def frequencies(self) -> np.ndarray:
        """[T, n], uint32, read-only; 0 marks a symbol behind the escape."""
        return self._frequencies

    @property
    def precision(self) -> int:
        """Frequencies are in units of 2^-precision."""
        return self._precision

    @property
    def escape(self) -> bool:
        """Whether the last unit of every table belongs to the escape."""
        return self._escape

    @property
    def low(self) -> int:
        """The first symbol."""
        return self._low

    @property
    def count(self) -> int:
        """Number of tables T."""
        return self._frequencies.shape[0]

    @property
    def symbols(self) -> int:
        """Number of symbols n of the alphabet."""
        return self._frequencies.shape[1]

    @cached_property
    def _fits_registers(self) -> bool:
        """One table that rans32's search tree takes: csrc/cpu/rans32_tree.h."""
        kept = np.count_nonzero(self._frequencies) + self.escape
        return self.count == 1 and self.precision <= 14 and kept <= 64

    def cost(self, symbols: Any, index: Any = None) -> float:
        """Bits that these symbols cost, escapes included: -sum log2 of what the coder takes.

        Args:
            symbols: integers of any shape.
            index: table of each symbol, of the same shape; may be left out for a single table.

        Raises:
            ArgumentError: a symbol without a code, an index that is no table.
        """
        s = integers("cost", "symbols", symbols).astype(np.int64).reshape(-1)
        t = np.zeros_like(s)
        if index is not None:
            t = integers("cost", "index", index).astype(np.int64).reshape(-1)
        elif self.count > 1:
            raise ArgumentError("cost: index is missing, but there are several tables")
        if t.shape != s.shape or (t < 0).any() or (t >= self.count).any():
            raise ArgumentError(f"cost: index is not one of 0 .. {self.count - 1} a symbol")
        offset = s - self.low
        inside = (offset >= 0) & (offset < self.symbols)
        f = np.where(inside, self._frequencies[t, np.where(inside, offset, 0)], 0)
        escaped = f == 0
        if escaped.any() and not self.escape:
            raise ArgumentError("cost: a symbol lies outside the alphabet, and there is no escape")
        bits = self.precision * len(s) - float(np.log2(np.maximum(f, 1)).sum())
        bits += int(escaped.sum()) * math.log2(self.symbols + 1)
        beyond = np.where(offset < 0, -1 - offset, offset - self.symbols)[~inside]
        return bits + float((2 + 2 * np.floor(np.log2(beyond + 1.0))).sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tables) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tables.from_bytes, (self.to_bytes(),)

    def __repr__(self) -> str:
        return (
            f"Tables(T={self.count}, n={self.symbols}, low={self.low}, "
            f"precision={self.precision}, escape={self.escape})"
        )


def _stored_as(precision: int) -> np.dtype:
    return np.dtype("<u2" if precision <= 16 else "<u4")


def _check_2d(op: str, name: str, rows: np.ndarray) -> None:
    if rows.ndim != 2 or 0 in rows.shape:
        raise ShapeError(f"{op} takes {name} [T, n] or [n], not empty; got {list(rows.shape)}")


def _rows(op: str, name: str, array: Any) -> np.ndarray:
    """[T, n], uint32, contiguous; a single row may come as [n]."""
    rows = np.atleast_2d(integers(op, name, array))
    _check_2d(op, name, rows)
    if int(rows.min()) < 0 or int(rows.max()) >= 2**32:
        raise ArgumentError(
            f"{op}: {name} holds {int(rows.min())} .. {int(rows.max())}, expected 0 .. 2^32 - 1"
        )
    return np.ascontiguousarray(rows, np.uint32)

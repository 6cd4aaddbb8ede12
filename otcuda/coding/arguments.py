# SPDX-License-Identifier: Apache-2.0
"""Arguments of the coder that are no arrays: what is wrong is named, and what may be."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, ShapeError

SIZE_MAX = 2**62
_DTYPES = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]
_NATIVE = {key: each for each in _DTYPES for key in (each, each.name, each.str[1:])}


def shown(value: Any) -> str:
    """A value as an error names it: short ones as they are, others by their type."""
    text = repr(value) if value is None or isinstance(value, str | int | float | bool) else ""
    return text if 0 < len(text) <= 40 else f"of type {type(value).__name__}"


def whole(op: str, name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int from low to high; ArgumentError otherwise."""
    if type(value) is int and low <= value <= high:
        return value  # what follows costs a tenth of coding a short message
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(
            f"{op}: {name} is {shown(value)}, expected an integer from {low} to {high}"
        ) from None
    if not low <= number <= high:
        raise ArgumentError(f"{op}: {name} is {number}, expected {low} .. {high}")
    return number


def limit(op: str, value: Any) -> int:
    """`max_symbols` as an int: NaN would let everything through."""
    return whole(op, "max_symbols", value, 0, 2**63 - 1)


def flag(op: str, name: str, value: Any) -> bool:
    """True or False, 1 or 0; ArgumentError otherwise."""
    if not isinstance(value, bool | np.bool_ | int) or value not in (0, 1):
        raise ArgumentError(f"{op}: {name} is {shown(value)}, expected True or False")
    return bool(value)


def sizes(op: str, shape: Any) -> tuple[int, ...]:
    """A shape, an int or several, as a tuple of them.

    Raises:
        ShapeError: a size below 0.
        ArgumentError: no integers.
    """
    given = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if any(isinstance(size, int) and size < 0 for size in given):
        raise ShapeError(f"{op}: shape is {shape}, expected sizes of 0 or more")
    return tuple(whole(op, "shape", size, 0, SIZE_MAX) for size in given)


def integer_dtype(op: str, dtype: Any) -> np.dtype:
    """`dtype` as an integer dtype of NumPy, in native byte order."""
    try:
        return _NATIVE[dtype]
    except (KeyError, TypeError):
        pass
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise ArgumentError(f"{op}: dtype is {shown(dtype)}, expected integers") from None
    if found.kind not in "iu":
        raise ArgumentError(f"{op}: dtype is {found}, expected integers")
    return found.newbyteorder("=")


def raw_bytes(op: str, name: str, data: Any) -> bytes:
    """`data` as bytes; ArgumentError for what has none."""
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))
    except (TypeError, ValueError, BufferError):
        raise ArgumentError(
            f"{op}: {name} is {shown(data)}, expected bytes, bytearray or memoryview"
        ) from None


def checked(op: str, name: str, given: Any, kind: type) -> Any:
    """`given`, if it is of this class; ArgumentError otherwise."""
    if not isinstance(given, kind):
        raise ArgumentError(f"{op}: {name} is {shown(given)}, expected {kind.__name__}")
    return given


def several(op: str, name: str, given: Any, length: int | None = None) -> tuple[Any, ...]:
    """`given` as a tuple, of `length` if that is given; ArgumentError otherwise."""
    try:
        found = () if isinstance(given, str | bytes) else tuple(given)
        good = not isinstance(given, str | bytes) and length in (None, len(found))
    except TypeError:
        good = False
    if not good:
        wanted = "a sequence" if length is None else f"{length} of them"
        raise ArgumentError(f"{op}: {name} is {shown(given)}, expected {wanted}")
    return found


def neighbours(op: str, name: str, given: Any) -> tuple[tuple[int, int], ...]:
    """Places (dy, dx) beside a symbol; whether a decoder knows them the core checks."""
    pairs = [several(op, f"a neighbour of {name}", each, 2) for each in several(op, name, given)]
    ends = -4096, 4096
    return tuple(
        (whole(op, f"dy in {name}", y, *ends), whole(op, f"dx in {name}", x, *ends))
        for y, x in pairs
    )

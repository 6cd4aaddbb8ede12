# SPDX-License-Identifier: Apache-2.0
"""Arrays at the door of the coder: integers of any kind in, symbols of the same kind out."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from otcuda._arrays import is_torch, like_first
from otcuda.coding.arguments import integer_dtype, limit, shown, sizes
from otcuda.errors import ArgumentError, LimitError, ShapeError

_INTEGERS = frozenset(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8))


def integers(op: str, name: str, array: Any) -> np.ndarray:
    """`array` as C-contiguous integers in host memory, of its own shape.

    Raises:
        ArgumentError: not an array of integers.
    """
    if type(array) is np.ndarray and array.dtype in _INTEGERS:
        flags = array.flags
        if flags.c_contiguous and flags.aligned:
            return array  # what follows costs more than coding a short message
    array = _as_numpy(op, name, array, "integers")
    if array.size == 0 and array.dtype == np.float64:  # np.asarray([]) knows no better
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ArgumentError(f"{op}: {name} is {array.dtype}, expected integers")
    native_order = array.dtype.newbyteorder("=")
    return np.require(array, native_order, ["C", "A"]).reshape(array.shape)


def floats(op: str, name: str, array: Any) -> np.ndarray:
    """`array` as float64 in host memory.

    Raises:
        ArgumentError: not an array of real numbers.
    """
    found = _as_numpy(op, name, array, "numbers")
    if found.dtype.kind not in "fiub":
        raise ArgumentError(f"{op}: {name} is {found.dtype}, expected real numbers")
    return found.astype(np.float64)


def _as_numpy(op: str, name: str, array: Any, wanted: str) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    try:
        if is_torch(array):
            return array.detach().cpu().numpy()
        return np.from_dlpack(array) if hasattr(array, "__dlpack__") else np.asarray(array)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        given = str(array.dtype) if is_torch(array) else shown(array)
        raise ArgumentError(f"{op}: {name} is {given}, expected {wanted}: {error}") from None


def like_of(array: np.ndarray, like: Any) -> Any:
    """`array` as the kind of `like`, on its device."""
    if is_torch(like):
        return sys.modules["torch"].from_numpy(array).to(like.device)
    return array if like is None else like_first(like, array)


def flat_pair(op: str, symbols: Any, index: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Symbols and index as flat integers of equal shapes."""
    symbols = integers(op, "symbols", symbols)
    if index is None:
        return symbols.reshape(-1), None
    index = integers(op, "index", index)
    if symbols.shape != index.shape:
        raise ShapeError(
            f"{op} takes symbols and index of one shape; got symbols {list(symbols.shape)}, "
            f"index {list(index.shape)}"
        )
    return symbols.reshape(-1), index.reshape(-1)


def empty_symbols(
    op: str, index: Any, shape: Any, dtype: str, most: int, out: Any = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Room for symbols of the shape of the index (of `shape`, of `out`), and the flat index.

    The room is `out` itself where symbols can be written there; `given_back` does the rest.
    """
    target = None if out is None else writable(op, out)
    wanted = None if shape is None else sizes(op, shape)
    if index is not None:
        index = integers(op, "index", index)
        if wanted is not None and wanted != index.shape:
            raise ShapeError(f"{op}: shape is {shape}, but index has {list(index.shape)}")
        wanted, index = index.shape, index.reshape(-1)
    elif wanted is None and target is not None:
        wanted = target.shape
    elif wanted is None:
        raise ArgumentError(f"{op} needs index or shape: a message does not tell its length")
    if math.prod(wanted) > limit(op, most):
        raise LimitError(f"{op}: {math.prod(wanted)} symbols asked for, max_symbols is {most}")
    if target is not None:
        return _room_in(op, target, wanted, index), index
    return np.empty(wanted, integer_dtype(op, dtype)), index


def _room_in(op: str, target: np.ndarray, wanted: tuple, index: np.ndarray | None) -> np.ndarray:
    """`target`, or an array like it where symbols cannot be written there one after the other."""
    if target.shape != wanted:
        raise ShapeError(f"{op}: out has shape {list(target.shape)}, the result {list(wanted)}")
    in_place = target.flags.carray and target.dtype.isnative
    in_place &= index is None or not np.may_share_memory(target, index)
    return target if in_place else np.empty(wanted, target.dtype.newbyteorder("="))


def given_back(symbols: np.ndarray, like: Any, out: Any) -> Any:
    """`out`, which then holds the symbols; without it the symbols as the kind of `like`."""
    if out is None:
        return like_of(symbols, like)
    target = writable("decode", out)
    if not np.may_share_memory(target, symbols):
        np.copyto(target, symbols)
    return out


def writable(op: str, out: Any) -> np.ndarray:
    """`out` as an array to write to.

    Raises:
        ArgumentError: not a writable array of integers.
    """
    target = out
    if is_torch(out) and out.device.type == "cpu":
        target = out.detach().numpy()
    elif not is_torch(out) and not isinstance(out, np.ndarray) and hasattr(out, "__dlpack__"):
        target = _as_numpy(op, "out", out, "an array of integers in host memory")
    if not isinstance(target, np.ndarray) or target.dtype.kind not in "iu":
        raise ArgumentError(f"{op}: out is not an array of integers in host memory")
    if not target.flags.writeable:
        raise ArgumentError(f"{op}: out is read-only")
    return target

# SPDX-License-Identifier: Apache-2.0
"""What one PTX instruction makes of the numbers of many threads, for ptx_runner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
TYPES = {
    kind + str(bits): np.dtype(f"{code}{bits // 8}")
    for kind, code, sizes in (
        ("u", "u", (8, 16, 32, 64)),
        ("s", "i", (8, 16, 32, 64)),
        ("b", "u", (8, 16, 32, 64)),
        ("f", "f", (32, 64)),
    )
    for bits in sizes
}


class PtxError(AssertionError):
    """A kernel did what it must not, or an opcode is not known."""


def quiet(function: Callable) -> Callable:
    def quiet(*args):
        with np.errstate(all="ignore"):
            return function(*args)

    return quiet


def _truncated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    y = np.where(y == 0, 1, y).astype(x.dtype)
    quotient = np.abs(x) // np.abs(y)
    return np.where((x < 0) != (y < 0), -quotient, quotient).astype(x.dtype)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return x / y
    return _truncated(x, y) if x.dtype.kind == "i" else x // np.where(y == 0, 1, y)


def shift(x: np.ndarray, by: np.ndarray, left: bool) -> np.ndarray:
    bits = x.dtype.itemsize * 8
    far, by = by >= bits, np.minimum(by, bits - 1).astype(x.dtype)
    shifted = x << by if left else x >> by
    return np.where(far & (left | (x.dtype.kind == "u")), 0, shifted).astype(x.dtype)


def _reversed_bits(x: np.ndarray) -> np.ndarray:
    return np.array([int(f"{int(v):032b}"[::-1], 2) for v in x], np.uint32)


def _leading(x: np.ndarray) -> np.ndarray:  # bfind.shiftamt: left shift that brings the top bit up
    return np.array([32 - int(v).bit_length() if v else 2**32 - 1 for v in x], np.uint32)


def insert(ins: np.ndarray, base: np.ndarray, at: np.ndarray, width: np.ndarray) -> np.ndarray:
    at, width = at.astype(base.dtype), width.astype(base.dtype)
    mask = ((base.dtype.type(1) << width) - base.dtype.type(1)) << at
    return (base & ~mask) | ((ins << at) & mask)


def _maximum(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # a NaN gives way to a number
    return np.fmax(x, y) if x.dtype.kind == "f" else np.maximum(x, y)


def _minimum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.fmin(x, y) if x.dtype.kind == "f" else np.minimum(x, y)


ARITHMETIC: dict[str, Callable] = {  # all operands have the type of the opcode
    "add": np.add,
    "sub": np.subtract,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "neg": np.negative,
    "abs": np.abs,
    "max": _maximum,
    "min": _minimum,
    "div": _divide,
    "sqrt": np.sqrt,
    "rcp": lambda x: x.dtype.type(1) / x,
    "brev": _reversed_bits,
    "clz": lambda x: np.array([32 - int(v).bit_length() for v in x], np.uint32),
    "popc": lambda x: np.array([int(v).bit_count() for v in x], np.uint32),
    "bfind": _leading,
    "prmt": lambda x, y, selector: permute(x, y, selector),
    "mov": lambda x: x,
}
ORDERED = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": lambda x, y: (x != y) & ~_unordered(x, y),
}
LOGIC = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "mov": lambda x: x,
}


def _unordered(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.isnan(x) | np.isnan(y) if x.dtype.kind == "f" else np.zeros(len(x), bool)


def compare(how: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if how in ("num", "nan"):
        return _unordered(x, y) == (how == "nan")
    if how in ORDERED:
        return ORDERED[how](x, y)
    return ORDERED[how.removesuffix("u")](x, y) | _unordered(x, y)


def convert(x: np.ndarray, to: np.dtype, rounding: str) -> np.ndarray:
    if x.dtype.kind == "f" and to.kind != "f":
        whole = {"rni": np.rint, "rzi": np.trunc}.get(rounding)
        if whole is None:
            raise PtxError(f"cvt with rounding {rounding}")
        x = whole(x)
    return x.astype(to)


def extended(value: np.ndarray) -> np.ndarray:  # what a wider register of a load holds
    return value.astype(np.int64) if value.dtype.kind == "i" else value


def permute(x: np.ndarray, y: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """Four of the eight bytes y:x, each by a nibble of the selector; its top bit: only the sign."""
    both = x.astype(np.uint64) | y.astype(np.uint64) << np.uint64(32)
    out = np.zeros(len(x), np.uint64)
    for k in range(4):
        nibble = selector.astype(np.uint64) >> np.uint64(4 * k)
        byte = both >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(0xFF)
        signs = np.where(byte >> np.uint64(7) != 0, np.uint64(0xFF), np.uint64(0))
        byte = np.where(nibble >> np.uint64(3) & np.uint64(1) != 0, signs, byte)
        out |= byte << np.uint64(8 * k)
    return out.astype(np.uint32)

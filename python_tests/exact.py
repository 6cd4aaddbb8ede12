# SPDX-License-Identifier: Apache-2.0
"""The contracts of power_argmax and cell_mass in NumPy; independent of the kernels."""

from __future__ import annotations

import ctypes
import ctypes.util
from fractions import Fraction

import numpy as np

_libm = ctypes.CDLL(ctypes.util.find_library("m"))
_libm.fma.restype = ctypes.c_double
_libm.fma.argtypes = [ctypes.c_double] * 3
_fma64 = np.frompyfunc(_libm.fma, 3, 1)


def fma(a, b, c):
    """One rounding of a * b + c; float32 without an fma: exact product, sum rounded to odd."""
    if a.dtype == np.float64:
        with np.errstate(all="ignore"):
            return _fma64(a, b, c).astype("f8")
    with np.errstate(invalid="ignore", over="ignore"):
        product = a.astype("f8") * b.astype("f8")  # 48 bits: exact
        c = np.broadcast_to(c, product.shape).astype("f8")
        total = product + c
        part = total - product
        error = (product - (total - part)) + (c - part)  # TwoSum: total + error is exact
        even = (total.view("i8") & 1) == 0
        inexact = np.isfinite(total) & np.isfinite(error) & (error != 0) & even
        nudged = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
        return np.where(inexact, nudged, total).astype("f4")


def scores(x, y, h):
    """s(b, i) of the contract, [B, N], in the dtype of x."""
    total = np.zeros((len(x), len(y)), x.dtype)
    for d in range(x.shape[1]):
        total = fma(x[:, d, None], y[None, :, d], total)
    with np.errstate(invalid="ignore", over="ignore"):
        return total + h


def power_argmax(x, y, h):
    """Value [B] and index [B] of the contract."""
    s = scores(x, y, h)
    none = np.isnan(s).all(1)
    best = np.where(none, np.nan, np.nanmax(np.where(none[:, None], 0, s), axis=1))
    index = np.where(none, -1, (s == best[:, None]).argmax(1))
    value = s[np.arange(len(s)), index]  # +0 and -0 are equal, but each winner has its own sign
    return np.where(none, np.float32(np.nan), value).astype(x.dtype), index


def power_topk(x, y, h, k):
    """Value and index [B, k] of the contract: a stable sort of what are numbers."""
    s = scores(x, y, h)
    value, index = np.full((len(x), k), np.nan, x.dtype), np.full((len(x), k), -1)
    for b, row in enumerate(s):
        order = np.argsort(-row, kind="stable")
        order = order[~np.isnan(row[order])][:k]
        value[b, : len(order)], index[b, : len(order)] = row[order], order
    return value, index


def cell_mass(index, N, weights=None):
    """Counts [N], or fixed-point sums [N] in the dtype of the weights."""
    kept = index >= 0
    if weights is None:
        return np.bincount(index[kept], minlength=N)
    largest = float(np.abs(weights).max(initial=0.0))
    exponent = max(int(np.frexp(largest)[1]), -1021)  # largest < 2^exponent
    k = 62 - exponent - (max(len(index), 1) - 1).bit_length() if largest else 0
    sums, unit = [0] * N, Fraction(2) ** k
    for i, w in zip(index[kept].tolist(), weights[kept].tolist(), strict=True):
        sums[i] += round(Fraction(w) * unit)
    return np.array([float(Fraction(s) / unit) for s in sums]).astype(weights.dtype)

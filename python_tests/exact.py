# SPDX-License-Identifier: Apache-2.0
"""The contract of power_argmax in NumPy, rounding by rounding; independent of the kernels."""

from __future__ import annotations

import numpy as np


def fma(a, b, c):
    """float32 a * b + c with one rounding, without an fma: exact product, sum rounded to odd."""
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
    """s(b, i) of the contract, [B, N] float32."""
    total = np.zeros((len(x), len(y)), "f4")
    for d in range(x.shape[1]):
        total = fma(x[:, d, None], y[None, :, d], total)
    with np.errstate(invalid="ignore", over="ignore"):
        return total + h


def power_argmax(x, y, h):
    """Value [B] and index [B] of the contract."""
    s = scores(x, y, h)
    none = np.isnan(s).all(1)
    best = np.where(none, np.nan, np.nanmax(np.where(none[:, None], 0, s), axis=1))
    winners = s == best[:, None]
    return best.astype("f4"), np.where(none, -1, winners.argmax(1))

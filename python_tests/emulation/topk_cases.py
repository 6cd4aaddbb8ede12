# SPDX-License-Identifier: Apache-2.0
"""Problems for power_topk on the emulator, and the contract of common/power_topk.h in NumPy."""

from __future__ import annotations

import argmax_cases
import exact
import numpy as np
from emulation.calls import emulated_gap, emulated_topk


def gap(value):
    """Of the two best, [B, 2]."""
    first, second = value[:, 0], np.where(np.isnan(value[:, 1]), -np.inf, value[:, 1])
    with np.errstate(invalid="ignore"):
        return np.where(first == second, 0, first - second).astype(value.dtype)


def assert_same_bits(got, want):
    """Equal to the bit, but for the payload of a NaN."""
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
        numbers = ~np.isnan(b)
        assert a[numbers].tobytes() == b[numbers].tobytes()


def check(emulator, x, y, h, k, **settings):
    """The list of k and, with k = 2, the gap."""
    want = exact.power_topk(x, y, h, k)
    assert_same_bits(emulated_topk(emulator, x, y, h, k, **settings), want)
    if k == 2:
        pair = want[0][:, 0], want[1][:, 0], gap(want[0])
        assert_same_bits(emulated_gap(emulator, x, y, h, **settings), pair)


def crossed(dtype="f4"):
    """Six targets that matter, in five groups of eight; of the fives the one at 58 is left out.

    The group of 26 is looked at last, when the list is full and both other fives are in it.
    """
    x, y = np.ones((3, 1), dtype), np.full((66, 1), -1, dtype)
    y[17:58:8], y[25], y[49] = 10, -1, -1
    y[[18, 26, 58]] = 5
    return x, y, np.zeros(66, dtype)


def spread(dtype="f4"):
    """40 groups, each with one of the 40 best; the last to come is the best."""
    y = np.where(np.arange(320) % 8 == 5, np.arange(320), -1).astype(dtype)
    return np.ones((2, 1), dtype), y[:, None], np.zeros(320, dtype)


def rising(dtype="f4"):
    """The best come last, and little better, more than 128 groups on."""
    y = 1 + np.arange(1100, dtype=dtype) / 2048
    return np.ones((1, 1), dtype), y[:, None], np.zeros(1100, dtype)


def few_alive(dtype="f4"):
    """Three live targets among 150 that are dead or NaN; one sample of NaN, one of infinities."""
    x, y, noise = (a.astype(dtype) for a in argmax_cases.base((5, 150, 3)))
    h = np.where(np.arange(150) % 3 == 1, -np.inf, np.nan).astype(dtype)
    h[[140, 70, 5]] = noise[:3]
    x[3, 1], x[1] = np.nan, np.inf
    return x, y, h


def problems():
    """(x, y, h, k): for each bound of the kernels."""
    for dtype in ("f4", "f8"):
        yield *crossed(dtype), 6
        yield *spread(dtype), 40
        yield *rising(dtype), 3
        yield *few_alive(dtype), 40
        x, y, h = argmax_cases.hard_case("signed zeros", dtype)
        yield x[:5], y, h, 33
        x, y, h = argmax_cases.hard_case("not numbers", dtype)
        yield x[:14], y, h, 64
        x, y, h = argmax_cases.hard_case("dead behind nan", dtype)
        yield x[::5], y, h, 2
        x, y, h = (a.astype(dtype) for a in argmax_cases.base((9, 5, 3)))
        yield x, y, h, 7  # fewer targets than places
        yield x, y, np.full_like(h, -np.inf), 4
    x, y, h = argmax_cases.base((130, 270, 19))
    yield x, y, h, 2

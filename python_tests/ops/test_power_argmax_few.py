# SPDX-License-Identifier: Apache-2.0
"""Few samples, by lanes of targets and narrow blocks: bits of many, nothing read beyond."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

import otcuda


def problem(rng, B, N, D, dtype):
    """Some duplicates, dead targets and NaN among normal numbers."""
    x, y = (rng.standard_normal((n, D)).astype(dtype) for n in (B, N))
    h = rng.standard_normal(N).astype(dtype)
    y[N // 2 :] = y[: N - N // 2]
    h[N // 2 :] = h[: N - N // 2]
    h[:: max(2, N // 3)] = -np.inf
    y[N // 3, 0] = np.nan
    return x, y, h


def assert_same(found, want):
    for ours, theirs in zip(found, want, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("D", [1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 100])
def test_rows_of_a_small_batch_have_the_bits_of_a_large_one(D, dtype, simd_level):
    rng = np.random.default_rng(D)
    for N in (1, 2, 7, 8, 9, 15, 16, 17, 63, 4100):
        x, y, h = problem(rng, 70, N, D, dtype)
        x[5], x[9, D - 1] = 0, np.nan
        value, index = otcuda.power_argmax(x, y, h)  # blocks of samples
        for B in (1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 31, 33, 48):
            assert_same(otcuda.power_argmax(x[:B], y, h), (value[:B], index[:B]))


def test_the_value_has_the_sign_of_zero_of_the_chain(simd_level):
    # Products of -0 added to +0 are +0; alone they would be -0.
    x, y = np.full((3, 32), 1e-30, "f4"), np.full((40, 32), -1e-30, "f4")
    for h in (np.zeros(40, "f4"), np.full(40, -0.0, "f4")):
        few = otcuda.power_argmax(x, y, h)
        assert_same(few, [a[:3] for a in otcuda.power_argmax(np.repeat(x, 30, 0), y, h)])


def test_dead_and_nan_rows(simd_level):
    rng = np.random.default_rng(0)
    x, y, h = (rng.standard_normal(size).astype("f4") for size in ((4, 32), (50, 32), 50))
    y[0], x[3] = np.nan, np.nan
    value, index = otcuda.power_argmax(x, y, h - np.float32(np.inf))
    assert index.tolist() == [1, 1, 1, -1]
    assert np.isneginf(value[:3]).all()
    assert np.isnan(value[3])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_targets(threads):
    x, y, h = problem(np.random.default_rng(1), 3, 20_000, 65, "f4")
    many = otcuda.power_argmax(np.concatenate([x] * 30), y, h)
    want = [a[:3] for a in many]
    otcuda.set_num_threads(threads)
    try:
        assert_same(otcuda.power_argmax(x, y, h), want)
    finally:
        otcuda.set_num_threads(0)


@pytest.mark.parametrize("D", [1, 3, 16, 17, 31, 33])
def test_nothing_is_read_behind_the_targets(D, simd_level):
    # The page behind y cannot be read: a row's end that is looked beyond kills the process.
    rng = np.random.default_rng(D)
    page = mmap.PAGESIZE
    for N in (3, 16, 37):
        used = -(-N * D * 4 // page) * page
        memory = mmap.mmap(-1, used + page)
        whole = np.frombuffer(memory, "u1")
        address = ctypes.c_void_p(whole.ctypes.data + used)
        assert ctypes.CDLL(None).mprotect(address, ctypes.c_size_t(page), 0) == 0
        y = whole[used - N * D * 4 : used].view("f4").reshape(N, D)
        y[:] = rng.standard_normal((N, D))
        x, h = rng.standard_normal((13, D)).astype("f4"), np.zeros(N, "f4")
        for few in (x[:2], x[:8], x):
            assert_same(otcuda.power_argmax(few, y, h), otcuda.power_argmax(few, y.copy(), h))

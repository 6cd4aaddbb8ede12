# SPDX-License-Identifier: Apache-2.0
"""The PTX that nvcc makes of power_topk gives the bits of the contract. Needs nvcc, no card."""

from __future__ import annotations

import struct

import exact
import numpy as np
import pytest
from emulation import nvcc, topk_cases
from emulation.emulator import aligned
from emulation.ptx_runner import Written, kernel, launch
from emulation.test_ptx import packed

ARCHITECTURES = ["sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def texts(request, nvcc_cache):
    """PTX of power_topk and of the kernels that it shares."""
    return [
        nvcc.compile_to(name, request.param, ".ptx", nvcc_cache)[0].read_text()
        for name in ("power_topk", "power_argmax")
    ]


def maxima_of(texts, x, y, h):
    """The best of each group [rows, groups], and where samples and targets lie: PairOf<T>."""
    (B, D), N = x.shape, len(y)
    if x.dtype == np.float64:
        groups = -(-N // 8)
        maxima = np.zeros((B, groups))
        args = [x, y, h, B, N, D, groups, Written(maxima)]
        launch(kernel(texts[0], "plain_maxima_kernel"), (1, 2), 128, args)
        return maxima, (x, y, h)
    x_panels, y_panels = packed(texts[1], x), packed(texts[1], y)
    heights = aligned(np.zeros(128 * len(y_panels), np.float32))
    launch(kernel(texts[1], "pack_heights"), (len(y_panels),), 128, [h, N, Written(heights)])
    maxima = aligned(np.zeros((128 * len(x_panels), 16 * len(y_panels)), np.float32))
    args = [x_panels, y_panels, heights, len(y_panels), D, Written(maxima)]
    launch(kernel(texts[0], "topk_maxima_kernel"), (len(x_panels), 2), 256, args)
    return maxima, (x_panels, y_panels, heights)


def ptx_topk(texts, x, y, h, listed, written, gap=None):
    """Value and index, [B, written]."""
    x, y, h = map(aligned, (x, y, h))
    (B, D), N = x.shape, len(y)
    maxima, pair = maxima_of(texts, x, y, h)
    value, index = np.zeros((B, written), x.dtype), np.zeros((B, written), np.int64)
    given = struct.pack("PPP", *(a.ctypes.data for a in pair))
    where = (value.ctypes.data, index.ctypes.data, 0 if gap is None else gap.ctypes.data)
    lists = struct.pack("PPPii", *where, listed, written)
    args = [given, maxima, B, N, D, maxima.shape[1], lists]
    outputs = [Written(a) for a in (value, index, gap) if a is not None]
    select = kernel(texts[0], f"select_kernelI{'f' if x.dtype == np.float32 else 'd'}")
    launch(select, (-(-B // 8),), 256, args, touched=[*outputs, *pair])
    return value, index


@pytest.mark.parametrize("number", [0, 1, 3, 4, 6, 7])
def test_lists(number, texts):
    """Of either dtype: ties, a list over two registers, dead cells, zeros, too few targets."""
    problems = list(topk_cases.problems())
    for x, y, h, k in (problems[number], problems[number + len(problems) // 2]):
        topk_cases.assert_same_bits(ptx_topk(texts, x, y, h, k, k), exact.power_topk(x, y, h, k))


def test_the_gap(texts):
    for x, y, h in (topk_cases.few_alive(), topk_cases.few_alive("f8")):
        gap = np.zeros(len(x), x.dtype)
        value, index = ptx_topk(texts, x, y, h, 2, 1, gap)
        want = exact.power_topk(x, y, h, 2)
        topk_cases.assert_same_bits((value, index), (want[0][:, :1], want[1][:, :1]))
        topk_cases.assert_same_bits([gap], [topk_cases.gap(want[0])])

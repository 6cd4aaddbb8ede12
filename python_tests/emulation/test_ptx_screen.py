# SPDX-License-Identifier: Apache-2.0
"""The PTX that nvcc makes of the screen finds the winners of the chain. Needs nvcc, no card."""

from __future__ import annotations

import re
import struct

import argmax_cases
import exact
import numpy as np
import pytest
from emulation import nvcc
from emulation.emulator import aligned
from emulation.ptx_hopper import HopperBlock
from emulation.ptx_runner import PtxError, Written, kernel, launch
from emulation.test_ptx import packed

ARCHITECTURES = ["sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def texts(request, nvcc_cache):
    """PTX of the screen and of the kernels that it shares."""
    names = ("power_argmax_screen", "power_argmax")
    return [
        nvcc.compile_to(name, request.param, ".ptx", nvcc_cache)[0].read_text() for name in names
    ]


def pointers(*arrays):
    return struct.pack(f"{len(arrays)}P", *(0 if a is None else a.ctypes.data for a in arrays))


def screened(text, panels_text, x, y, h, shares=2, wgmma=None):
    """Value, index, samples left to the fallback, maxima; `wgmma` is PTX of sm_90a."""
    (B, D), N = x.shape, len(y)
    W = 32 if D <= 32 else 64 if D <= 64 else 128
    rows, targets = -(-B // 128) * 128, -(-N // 64) * 64
    groups = targets // 64
    x, y, h = map(aligned, (x, y, h))

    def room(count, dtype):
        return aligned(np.zeros(count, dtype))

    x16, y16 = room(rows * W, np.uint16), room(targets * W, np.uint16)
    x_norms, y_norms, group_norms = (room(3 * n, np.float32) for n in (rows, targets, groups))
    for source, heights, n, padded, bits, norms in (
        (x, None, B, rows, x16, x_norms),
        (y, h, N, targets, y16, y_norms),
    ):
        to = pointers(bits, norms) + struct.pack("qq", n, padded)
        outputs = [Written(bits), Written(norms)]
        pack = kernel(text, f"screen_pack_kernelILi{W}E")
        launch(pack, (1,), 256, [source, heights, D, to], touched=outputs)
    args = [y_norms, groups, Written(group_norms)]
    launch(kernel(text, "screen_groups_kernel"), (-(-groups // 8),), 256, args)
    quads = room(2 * targets, np.float32)
    args = [h, N, targets, Written(quads)]
    launch(kernel(text, "screen_heights_kernel"), (-(-targets // 256),), 256, args)
    maxima = room(rows * groups, np.float32)
    inputs = [x16, y16, quads, x_norms, group_norms]
    problem = pointers(*inputs, maxima) + struct.pack("iiii", B, rows, groups, D)
    outputs = [Written(a) for a in (*inputs, maxima)]
    if wgmma is None:
        screen = kernel(text, f"argmax_screen_kernelILi{W}E")
        launch(screen, (rows // 128, shares), 128, [problem], touched=outputs)
    else:
        screen, grid = kernel(wgmma, f"wgmma_kernelILi{W}E"), (-(-rows // 256), shares)
        dynamic = {32: 31744, 64: 56320, 128: 70656}[W]
        launch(screen, grid, 544, [problem], dynamic, outputs, HopperBlock)

    y_panels = packed(panels_text, y)
    heights = room(128 * len(y_panels), np.float32)
    launch(kernel(panels_text, "pack_heights"), (len(y_panels),), 128, [h, N, Written(heights)])
    value, index, left = room(B, np.float32), room(B, np.int64), room(1, np.int32)
    left_rows = room(rows, np.int32)
    select = pointers(x, y_panels, heights, left, left_rows, value, index, None, None)
    outputs += [Written(a) for a in (x, y_panels, heights, left, left_rows, value, index)]
    args = [problem, select]
    launch(kernel(text, "screen_select_kernel"), (-(-B // 32),), 256, args, touched=outputs)
    return value, index, left_rows[: left[0]], maxima


@pytest.mark.parametrize(
    "shape", [(20, 150, 24), pytest.param((40, 90, 64), marks=pytest.mark.slow)]
)
def test_the_winners_of_the_chain(shape, texts):
    x, y, h = argmax_cases.base(shape)
    value, index, left, _ = screened(*texts, x, y, h)
    want_value, want_index = exact.power_argmax(x, y, h)
    sure = np.setdiff1d(np.arange(len(x)), left)
    assert len(sure) > 0
    np.testing.assert_array_equal(index[sure], want_index[sure])
    assert value[sure].tobytes() == want_value[sure].tobytes()


@pytest.fixture(scope="module")
def wgmma_texts(nvcc_cache):
    """PTX of the kernels by mma.sync and by warpgroups, and of those that both share."""
    files = [("_screen", "sm_80"), ("", "sm_80"), ("_wgmma", "sm_90a")]
    made = (nvcc.compile_to(f"power_argmax{f}", arch, ".ptx", nvcc_cache) for f, arch in files)
    return [path.read_text() for path, _ in made]


@pytest.mark.parametrize(
    "shape", [(20, 150, 24), *(pytest.param((9, 460, D), marks=pytest.mark.slow) for D in (40, 99))]
)
def test_warpgroups_find_the_same_maxima(shape, wgmma_texts):
    screen, panels, wgmma = wgmma_texts
    x, y, h = argmax_cases.base(shape)
    want = screened(screen, panels, x, y, h)
    got = screened(screen, panels, x, y, h, shares=1, wgmma=wgmma)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[3], want[3], rtol=1e-6)  # sums of 16 products in one rounding


@pytest.fixture(scope="module")
def maxima(wgmma_texts):
    """By mma.sync."""
    return screened(*wgmma_texts[:2], *argmax_cases.base((20, 150, 24)))[3]


WRONG_WGMMA = {
    "operands change places": (
        r"(k16\.f32\.bf16\.bf16 \{[^}]*\}, )\{([^,]*), ([^,]*), ([^,]*), ([^}]*)\}",
        r"\1{\3, \2, \4, \5}",
    ),
    "sums change places": (r"(k16\.f32\.bf16\.bf16 )\{([^,]*), ([^,]*), ", r"\1{\3, \2, "),
    "no sums are added to": (r", 1, 1, 1, 0;", ", 0, 1, 1, 0;"),
    "the wrong parity": (r"(try_wait\S+ p, \[[^]]*\]), %r\d+", r"\1, 1"),
    "fewer bytes": (r"(expect_tx\S+ _, \[[^]]*\]), %r\d+", r"\1, 4096"),
    "another barrier": (r"(complete_tx::bytes [^;]*, \[%r\d+)\]", r"\1+8]"),
    "another shape": (r"m64n64k16", "m64n64k8"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if k > 1 else []) for k, n in enumerate(WRONG_WGMMA)],
)
def test_wrong_inline_ptx_of_warpgroups_is_found(name, wgmma_texts, maxima):
    screen, panels, wgmma = wgmma_texts
    x, y, h = argmax_cases.base((20, 150, 24))
    wrong, count = re.subn(*WRONG_WGMMA[name], wgmma)
    assert count >= 1
    try:
        got = screened(screen, panels, x, y, h, shares=1, wgmma=wrong)[3]
    except PtxError:
        return
    assert not np.allclose(got, maxima, rtol=1e-6)


PLANTED = {
    "operands change places": (
        r"(mma\.sync\S+ \{[^}]*\}, )\{([^,]*), ([^,]*), ([^,]*), ([^}]*)\}",
        r"\1{\3, \2, \4, \5}",
    ),
    "the wrong rows": (r"(ldmatrix\S+ \{[^}]*\}, \[%r\d+)\]", r"\1+16]"),
    "another shape": (r"m16n8k16", "m16n8k8"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_wrong_inline_ptx_is_found(name, nvcc_cache):
    names = ("power_argmax_screen", "power_argmax")
    texts = [nvcc.compile_to(n, "sm_80", ".ptx", nvcc_cache)[0].read_text() for n in names]
    x, y, h = argmax_cases.base((20, 150, 24))
    wrong, count = re.subn(*PLANTED[name], texts[0])
    assert count >= 1
    try:
        _, index, left, _ = screened(wrong, texts[1], x, y, h)
    except PtxError:
        return
    sure = np.setdiff1d(np.arange(len(x)), left)
    assert (index[sure] != exact.power_argmax(x, y, h)[1][sure]).any()

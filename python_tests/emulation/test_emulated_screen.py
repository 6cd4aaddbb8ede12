# SPDX-License-Identifier: Apache-2.0
"""The screen of power_argmax: the bits of the chain, whatever the tensor cores round."""

from __future__ import annotations

import argmax_cases
import exact
import numpy as np
import pytest
from emulation.calls import assert_same_bits, emulated_screen
from emulation.emulator import ROOT
from emulation.screen_cases import far_apart, wrong_sums

SHAPES = [(1, 1, 1), (33, 63, 7), (129, 65, 16), (40, 200, 33), (130, 300, 64), (20, 140, 128)]


@pytest.fixture(params=["mma", "wgmma"])
def by(request):
    """Which instruction multiplies."""
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_of_the_chain(shape, by, emulator):
    x, y, h = argmax_cases.base(shape)
    got, _ = emulated_screen(emulator, x, y, h, by, processors=1)
    assert_same_bits(got, exact.power_argmax(x, y, h))


@pytest.mark.parametrize("name", argmax_cases.HARD)
def test_hard_cases(name, by, emulator):
    x, y, h = argmax_cases.hard_case(name)
    if not 1 <= x.shape[1] <= 128:
        pytest.skip("not a shape of the screen")
    got, _ = emulated_screen(emulator, x[:70], y, h, by)
    assert_same_bits(got, exact.power_argmax(x[:70], y, h))


def test_the_certificate_decides_where_targets_are_apart(by, emulator):
    x, y, h = far_apart()
    got, fallbacks = emulated_screen(emulator, x, y, h, by)
    assert_same_bits(got, exact.power_argmax(x, y, h))
    assert fallbacks == 0


def test_what_no_certificate_decides_goes_through_all_targets(by, emulator):
    """More groups than candidates hold the same target."""
    x, y, h = far_apart(40, 64, 20)
    y, h = np.tile(y, (18, 1)), np.tile(h, 18)
    got, fallbacks = emulated_screen(emulator, x, y, h, by, processors=1)
    assert_same_bits(got, exact.power_argmax(x, y, h))
    assert fallbacks == 40
    y[3, 4], h[900] = np.nan, np.inf
    x[7, 2], x[9, 0] = np.inf, np.nan
    got, fallbacks = emulated_screen(emulator, x, y, h, by, processors=1)
    assert_same_bits(got, exact.power_argmax(x, y, h))


@pytest.mark.parametrize("mma_error", [1, -1, 2, 3])
def test_errors_of_the_tensor_cores_change_no_winner(mma_error, by, emulator):
    cases = [*wrong_sums(), far_apart(40)]
    for seed, (x, y, h) in enumerate(cases):
        settings = {"mma_error": mma_error, "seed": seed + 1}
        got, _ = emulated_screen(emulator, x, y, h, by, **settings)
        assert_same_bits(got, exact.power_argmax(x, y, h))


@pytest.mark.parametrize(("seed", "preempt", "processors"), [(0, 0, 1), (2, 30, 7)])
def test_order_of_threads_and_shares_change_no_bit(seed, preempt, processors, by, emulator):
    x, y, h = argmax_cases.base((70, 330, 24))
    settings = {"seed": seed, "preempt": preempt, "processors": processors}
    got, _ = emulated_screen(emulator, x, y, h, by, **settings)
    assert_same_bits(got, exact.power_argmax(x, y, h))


@pytest.mark.parametrize("shape", [(260, 65, 32), (129, 1700, 48), (20, 1290, 128)], ids=str)
def test_both_kernels_leave_the_same_workspace(shape, emulator):
    """Every maximum of every group: a wrong one that changes no winner would be hidden above."""
    x, y, h = argmax_cases.base(shape)
    left = []
    for by in ("mma", "wgmma"):
        scratch = emulator.workspace("power_argmax_screen", *(len(x), *y.shape))
        scratch.array[:] = 0
        _, fallbacks = emulated_screen(emulator, x, y, h, by, scratch, processors=1)
        assert fallbacks == 0
        left.append(scratch.array)
    np.testing.assert_array_equal(*left)


@pytest.mark.parametrize("D", [24, 64, 128])
def test_fragments_meet_no_bank_conflict(D, emulator):
    x, y, h = argmax_cases.base((130, 400, D))
    emulated_screen(emulator, x, y, h, processors=1, traffic=True)
    lines = [t for t in emulator.take_traffic() if "screen.cu" in t.place and t.memory == "shared"]
    text = (ROOT / "csrc/cuda/power_argmax_screen.cu").read_text().splitlines()
    loads = [
        t
        for t in lines
        if any(w in line_of(text, t) for w in ("ldmatrix", "cp_async16", "heights["))
    ]
    assert sum("ldmatrix" in line_of(text, t) for t in loads) == 2
    assert all(t.ratio == 1.0 for t in loads), loads


@pytest.mark.parametrize("D", [24, 64, 128])
def test_warpgroups_load_heights_and_store_maxima_without_loss(D, emulator):
    x, y, h = argmax_cases.base((130, 400, D))
    emulated_screen(emulator, x, y, h, "wgmma", processors=1, traffic=True)
    lines = [t for t in emulator.take_traffic() if "wgmma.cu" in t.place]
    text = (ROOT / "csrc/cuda/power_argmax_wgmma.cu").read_text().splitlines()
    wanted = ("float2*>", "*out = most")
    found = {w: t.ratio for t in lines for w in wanted if w in line_of(text, t)}
    assert found == dict.fromkeys(wanted, 1.0)


def line_of(text, traffic):
    return text[int(traffic.place.split(":")[1]) - 1]

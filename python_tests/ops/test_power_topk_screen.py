# SPDX-License-Identifier: Apache-2.0
"""The integer screen for lists: the bits of the blocked loop, wherever the bound bites."""

from __future__ import annotations

import numpy as np
import pytest
from screen_cases import DATA, nearest, paths, problem

import otcuda
from otcuda._ops import native

K = (1, 2, 9, 16)  # around the 16 places that are moved at a time


def assert_same_lists(index, x, k):
    """Forced, against the blocked loop; the samples that the screen answered."""
    want = index.topk(x, k, method="brute")
    otcuda.backend_info(reset=True)
    got = index.topk(x, k, method="screen")
    for a, b in zip(got, want, strict=True):
        assert a.tobytes() == b.tobytes()
    return paths().get("power_topk/screen", {"items": 0})["items"]


@pytest.mark.parametrize("data", DATA, ids=lambda data: data.__name__)
def test_lists_have_the_bits_of_the_blocked_loop(data, screen_level):
    x, y, h = data(np.random.default_rng(1))
    index = otcuda.PowerIndex(y, h, tree=False)
    ks = K if screen_level != "portable" else (9,)
    answered = [assert_same_lists(index, x, k) for k in ks]
    usual = {"normal", "inner_product", "duplicates", "on_a_surface", "off_centre", "half_dead"}
    if data.__name__ in usual:
        assert answered == [len(x)] * len(ks)


@pytest.mark.parametrize("k", [17, 33, 63, 64])
def test_long_lists(k, screen_level):
    x, y, _ = problem(40, 9000, 20)
    y[5000:] = y[:4000]  # twins: the lower index first, on the border of the list too
    index = otcuda.PowerIndex(y, nearest(y), tree=False)
    assert assert_same_lists(index, x, k) == 40


def test_a_list_that_reaches_below_a_group_is_not_the_screens(screen_level):
    # Two targets a billion units above the rest of their group: the third best is among those that
    # no sum of the group could show.
    x, y, _ = problem(20, 2000, 16)
    h = np.float32(-2e6) * np.ones(2000, "f4")
    h[[3, 900]] = 0
    index = otcuda.PowerIndex(y, h, tree=False)
    assert assert_same_lists(index, x, 2) == 20
    assert assert_same_lists(index, x, 3) == 0


def test_fewer_live_targets_than_places(screen_level):
    x, y, h = problem(20, 2000, 16)
    h[5:] = -np.inf
    index = otcuda.PowerIndex(y, h, tree=False)
    assert assert_same_lists(index, x, 5) == 20
    assert assert_same_lists(index, x, 6) == 0


def test_ties_across_buckets_of_targets(screen_level):
    # Large targets come first in the screen, whatever their index.
    rng = np.random.default_rng(0)
    y = rng.integers(-2, 3, (2100, 40)).astype("f4")
    x = np.zeros((30, 40), "f4")
    x[:, 0], y[:, 0] = 1, -50
    y[-20:, 1] = 4096
    y[[7, 30, 2095, 2099], 0] = 1
    index = otcuda.PowerIndex(y, np.zeros(2100, "f4"), tree=False)
    assert assert_same_lists(index, x, 3) == 30
    assert index.topk(x, 4, method="screen")[1][0].tolist() == [7, 30, 2095, 2099]


needs_vnni = pytest.mark.skipif(not native.simd_vnni(), reason="needs VNNI")


@needs_vnni
def test_it_is_chosen_where_it_wins():
    x, y, h = problem(300, 16_384, 64)
    index = otcuda.PowerIndex(y, h, tree=False)
    want = index.topk(x, 8, method="brute")
    otcuda.backend_info(reset=True)
    got = index.topk(x, 8)
    ran = paths()
    assert ran["power_topk/screen"]["items"] == 300
    assert ran["power_topk/screen_chains"]["items"] < 300 * 200  # of 16,384
    for a, b in zip(got, want, strict=True):
        assert a.tobytes() == b.tobytes()
    index.topk(x, 64)  # many pairs for so few targets
    assert "power_topk/screen" not in paths()
    called = otcuda.power_topk(np.concatenate([x, x]), y, h, 8)
    assert paths()["power_topk/screen"]["items"] == 600
    assert called[0][:300].tobytes() == want[0].tobytes()


@needs_vnni
def test_the_gap_of_an_index_is_that_of_lists_of_two():
    x, y, h = problem(100, 4096, 64)
    index = otcuda.PowerIndex(y, h, tree=False)
    want = index.argmax(x, method="brute", return_gap=True)
    otcuda.backend_info(reset=True)
    got = index.argmax(x, return_gap=True)
    assert paths()["power_topk/screen"]["items"] == 100
    for a, b in zip(got, want, strict=True):
        assert a.tobytes() == b.tobytes()


@needs_vnni
def test_an_index_remembers_for_how_long_lists_it_gave_up():
    x, y, h = problem(200, 16_384, 64)
    y[:, 0] = x[:, 0] = 4000
    index = otcuda.PowerIndex(y, nearest(y), tree=False)
    otcuda.backend_info(reset=True)
    index.topk(x, 4)
    assert paths()["power_topk/screen_fallbacks"]["items"] >= 100
    index.topk(x, 4)
    assert not any("screen" in path for path in paths())
    index.set_heights(h)
    index.topk(x, 4)
    assert any("screen" in path for path in paths())


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(threads):
    x, y, h = problem(500, 4096, 33)
    index = otcuda.PowerIndex(y, h, tree=False)
    otcuda.set_num_threads(threads)
    try:
        assert assert_same_lists(index, x, 7) == 500
    finally:
        otcuda.set_num_threads(0)

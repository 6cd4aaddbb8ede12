# SPDX-License-Identifier: Apache-2.0
"""Lists by the screen: the bits of the plain loop of top_cells, whatever they start from."""

from __future__ import annotations

import numpy as np
import pytest
from screen_cases import DATA, nearest, paths, problem

import otcuda
from otcuda._lists import TargetIndex, top_cells
from otcuda._ops import native
from otcuda.errors import ArgumentError, ShapeError

needs_vnni = pytest.mark.skipif(not native.simd_vnni(), reason="needs VNNI")


def empty(B, K):
    return np.empty((B, K), np.int32), np.empty((B, K), np.float32), np.empty(B, np.float32)


def plain(x, y, h, K):
    out = empty(len(x), K)
    top_cells(x, y, h, out)
    return out


def assert_same(index, x, h, K, start=None, forced=True):
    """Against the plain loop; the samples that the screen answered."""
    index.set_heights(h)
    want, got = plain(x, index.y, h, K), empty(len(x), K)
    if start is not None:
        got[0][:], got[1][:] = start
    otcuda.backend_info(reset=True)
    index.lists(x, got, start=start is not None, forced=forced)
    ran = paths()
    for mine, truth in zip(got, want, strict=True):
        assert mine.tobytes() == truth.tobytes()
    return ran.get("top_cells/screen", {"items": 0})["items"]


@pytest.mark.parametrize("data", DATA, ids=lambda data: data.__name__)
def test_lists_have_the_bits_of_the_plain_loop(data, screen_level):
    x, y, h = data(np.random.default_rng(1))
    index = TargetIndex(y)
    answered = [
        assert_same(index, x, h, K) for K in ((1, 15) if screen_level != "portable" else (7,))
    ]
    if data.__name__ in {"normal", "inner_product", "duplicates", "on_a_surface", "half_dead"}:
        assert set(answered) == {len(x)}
    want = plain(x, y, h, 1)
    got = index.winners(x, forced=True)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in want[:2]]


@pytest.mark.parametrize("data", DATA, ids=lambda data: data.__name__)
def test_a_start_changes_no_bit(data):
    rng = np.random.default_rng(1)
    x, y, h = data(rng)
    index = TargetIndex(y)
    near = (h * (1 + 1e-3 * rng.standard_normal(len(h)))).astype("f4")
    for heights in (h, near, np.zeros_like(h)):
        assert_same(index, x, h, 15, plain(x, y, heights, 15)[:2])


def test_a_start_that_promises_too_much_is_scanned_again(screen_level):
    x, y, h = problem(300, 3000, 24)
    index = TargetIndex(y)
    index_of, inner, _ = plain(x, y, h, 5)
    inner[100:] += np.float32(20)  # floors above what there is
    inner[200:, 2] = np.nan
    index_of[150, 3], index_of[160, 3] = 3000, -1  # no target
    answered = assert_same(index, x, h, 5, (index_of, inner))
    assert 90 < answered < 200
    assert assert_same(index, x, h, 5, (index_of[::-1], inner[::-1])) < 300


def test_a_floor_a_little_too_high(screen_level):
    """It is where bounds still exceed it, of targets that do not."""
    x, y, h = problem(400, 3000, 24)
    index_of, inner, _ = plain(x, y, h, 5)
    inner += np.linspace(0, 16, 400, dtype="f4")[:, None]
    assert 10 < assert_same(TargetIndex(y), x, h, 5, (index_of, inner)) < 400


def test_the_last_place_may_tie_with_the_floor(screen_level):
    """All places of a list tie, so the floor is the score of the last one and of others."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-2, 3, (n, 20)).astype("f4") for n in (40, 60))
    y = np.repeat(y, 30, 0)
    h = np.zeros(len(y), "f4")
    assert assert_same(TargetIndex(y), x, h, 7, plain(x, y, h, 7)[:2]) == 40


def test_a_product_that_vanishes_keeps_its_sign(screen_level):
    x, y, h = problem(40, 1500, 20)
    x, y = np.abs(x) * np.float32(1e-10), -np.abs(y) * np.float32(1e-38)
    h *= np.float32(1e-26)
    answered = assert_same(TargetIndex(y), x, h, 5)
    assert answered == 40 or screen_level not in ("vnni", "bf16")
    assert np.signbit(plain(x, y, h, 5)[1]).all()


def test_fewer_live_targets_than_places(screen_level):
    x, y, h = problem(20, 2000, 16)
    h[7:] = -np.inf
    index = TargetIndex(y)
    assert assert_same(index, x, h, 6) == 20
    assert assert_same(index, x, h, 7) == 0  # the cut is missing
    assert assert_same(index, x, h, 9) == 0


@needs_vnni
def test_it_is_chosen_where_it_wins():
    x, y, h = problem(300, 16_384, 64)
    index = TargetIndex(y)
    assert assert_same(index, x, h, 15, forced=False) == 300
    start = plain(x, y, h, 15)[:2]
    otcuda.backend_info(reset=True)
    assert assert_same(index, x, h + np.float32(0.1), 15, start, forced=False) == 300
    assert paths(reset=False) == {}  # assert_same has read them
    index.winners(x)
    assert paths()["top_cells/screen"]["items"] == 300
    few = TargetIndex(y[:500])  # the plain loop's
    assert assert_same(few, x, h[:500], 15, forced=False) == 0


@needs_vnni
def test_a_start_saves_scores():
    x, y, h = problem(300, 16_384, 64)
    index, chains = TargetIndex(y), []
    index.set_heights(h)
    out = empty(300, 15)
    for start in (False, True):
        otcuda.backend_info(reset=True)
        index.lists(x, out, start=start)
        chains.append(paths()["top_cells/screen_chains"]["items"] / 300)
    assert 2 * chains[1] < chains[0] < 200


@needs_vnni
def test_what_was_given_up_is_tried_again_at_other_heights():
    x, y, h = problem(300, 16_384, 64)
    y[:, 0] = x[:, 0] = 4000
    index, out = TargetIndex(y), empty(300, 15)
    for heights, tried in ((nearest(y), [True, False]), (h, [True])):
        index.set_heights(heights)
        for expected in tried:
            otcuda.backend_info(reset=True)
            index.lists(x, out)
            assert any("screen" in path for path in paths()) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads):
    x, y, h = problem(1000, 4096, 33)
    otcuda.set_num_threads(threads)
    try:
        assert assert_same(TargetIndex(y), x, h, 15) == 1000
    finally:
        otcuda.set_num_threads(0)


def test_a_change_of_level_makes_new_integers():
    x, y, h = problem(70, 2100, 40)
    index = TargetIndex(y)
    for level in ("avx2", "portable", "avx2"):
        if level in native.simd_levels():
            otcuda.set_simd_level(level)
            assert assert_same(index, x, h, 9) == 70
    otcuda.set_simd_level("auto")


def test_targets_live_as_long_as_their_index():
    x, y, h = problem(40, 1000, 16)
    want = plain(x, y, h, 5)
    index = TargetIndex(y.copy())._native
    np.random.default_rng(0).random(y.shape)  # where a freed copy might have lain
    index.set_heights(h)
    got = empty(40, 5)
    index.lists(x, *got, False, True)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in want]


def test_wrong_arguments_are_named():
    x, y, h = problem(4, 50, 3)
    index = TargetIndex(y)
    with pytest.raises(ShapeError, match="h"):
        index.set_heights(h[:3])
    with pytest.raises(ShapeError, match="x"):
        index.lists(x[:, :2].copy(), empty(4, 2))
    with pytest.raises(ArgumentError, match="1 to 23"):
        index.lists(x, empty(4, 24))
    with pytest.raises(ArgumentError, match="no target"):
        TargetIndex(y[:0])

# SPDX-License-Identifier: Apache-2.0
"""The integer screen: the bits of the blocked loop, and a bound that is none if halved."""

from __future__ import annotations

import argmax_cases
import numpy as np
import pytest
from screen_cases import DATA, nearest, paths, problem

import otcuda
from otcuda._ops import native

SCREENED = {
    "normal",
    "inner_product",
    "duplicates",
    "on_a_surface",
    "off_centre",
    "huge_heights",
    "half_dead",
}


def assert_same(x, y, h, index=None):
    index = index or otcuda.PowerIndex(y, h, tree=False)
    want_value, want = index.argmax(x, method="brute")
    otcuda.backend_info(reset=True)
    value, winner = index.argmax(x, method="screen")
    assert winner.tolist() == want.tolist()
    assert value.tobytes() == want_value.tobytes()


@pytest.mark.parametrize("data", DATA, ids=lambda data: data.__name__)
def test_the_screen_gives_the_bits_of_the_blocked_loop(data, screen_level):
    x, y, h = data(np.random.default_rng(1))
    assert_same(x, y, h)
    if data.__name__ in SCREENED:
        assert paths()["power_argmax/screen"]["items"] == len(x)


def test_the_lowest_index_wins_across_groups(screen_level):
    # Large targets come first in the screen, whatever their index.
    rng = np.random.default_rng(0)
    y = rng.integers(-2, 3, (2100, 40)).astype("f4")
    x = np.zeros((75, 40), "f4")
    x[:, 0], y[:, 0] = 1, -50
    y[-20:, 1] = np.tile(np.float32([4096, 4096, -4096, -4096]), 5)
    y[[7, 2093], 0] = 1
    h = np.zeros(2100, "f4")
    assert_same(x, y, h)
    assert paths()["power_argmax/screen"]["items"] == 75
    assert set(otcuda.power_argmax(x, y, h)[1].tolist()) == {7}


@pytest.mark.parametrize("D", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 129, 300])
def test_every_remainder(D, screen_level):
    rng = np.random.default_rng(D)
    for N, B in ((1, 1), (5, 15), (6, 16), (7, 17), (95, 63), (97, 65), (1031, 130)):
        x, y = (rng.standard_normal((n, D)).astype("f4") for n in (B, N))
        assert_same(x, y, nearest(y))


def test_golden_and_hard_cases(screen_level):
    shapes = [shape for shape in argmax_cases.SHAPES if np.prod(shape) < 200_000]
    cases = [arrays for _, *arrays in argmax_cases.cases(shapes)]
    for x, y, h in cases + [argmax_cases.hard_case(name) for name in argmax_cases.HARD]:
        assert_same(x, y, h)


# --- the bound


def tight(rng, D):
    """Half a unit off their integers, along a target: Cauchy-Schwarz is an equality."""
    side = rng.choice(np.float32([-1, 1]), (64, D))
    side = np.concatenate([side, -side])
    x, y = (rng.integers(1, 30, side.shape) + 0.49).astype("f4") * side, 16 * side
    x[:, 0], y[:, 0] = 63 * side[:, 0], 127 * side[:, 0]  # so that the units are 1
    return x, y, rng.standard_normal(len(y)).astype("f4")


def tight_halves(rng, D):
    """The same for bfloat16, whose neighbours are 1 apart from 128 on; the units are 1."""
    side = rng.choice(np.float32([-1, 1]), (64, D))
    side = np.concatenate([side, -side])
    most = np.float32(8000 / np.sqrt(D))
    x, y = (rng.integers(128, 256, side.shape) + 0.49).astype("f4") * side, most * side
    x[:, 0] = most * side[:, 0]
    return x, y, rng.standard_normal(len(y)).astype("f4")


def offset(rng, D):
    x, y = (rng.standard_normal((n, D)).astype("f4") + np.float32(100) for n in (64, 500))
    return x, y, (1e4 * rng.standard_normal(500)).astype("f4")


def tails(rng, D):
    x, y = (rng.standard_normal((n, D)).astype("f4") ** 3 for n in (64, 500))
    return x, y, nearest(y)


def plain(rng, D):
    x, y = (rng.standard_normal((n, D)).astype("f4") for n in (64, 500))
    return x, y, nearest(y)


def violations(x, y, h, factor):
    index = otcuda.PowerIndex(y, h, tree=False)
    return index._handle.screen_violations(x, factor)


@pytest.mark.parametrize("D", [1, 4, 16, 64, 150])
@pytest.mark.parametrize("data", [plain, tight, tight_halves, offset, tails])
def test_no_pair_scores_more_than_its_bound(data, D, screen_level):
    for seed in range(2 if screen_level == "portable" else 4):
        x, y, h = data(np.random.default_rng(seed), D)
        assert violations(x, y, h, 1.0) == 0


def test_half_the_error_terms_would_not_do(screen_level):
    hard = [(tight, 64), (tight, 150)]
    if screen_level == "bf16":
        hard = [(tight_halves, 64), (tight_halves, 256)]
    for data, D in [(plain, 4), *hard]:
        assert violations(*data(np.random.default_rng(0), D), 0.5) > 0


# --- when it runs


def test_power_argmax_screens_by_itself_where_it_pays():
    x, y, h = problem(2100, 4096, 64)
    otcuda.backend_info(reset=True)
    value, index = otcuda.power_argmax(x, y, h)
    ran = paths()
    assert ran["power_argmax/screen"]["items"] == 2100
    assert ran["power_argmax/screen_chains"]["items"] < 2100 * 64  # of 4096 targets
    ends = ["", "_pairs", "_chains"] + ["_vnni"] * native.simd_vnni()
    assert set(ran) == {f"power_argmax/screen{end}" for end in ends}
    want_value, want = otcuda.PowerIndex(y, h, tree=False).argmax(x, method="brute")
    assert index.tolist() == want.tolist()
    assert value.tobytes() == want_value.tobytes()
    otcuda.power_argmax(x[:30], y, h)  # few samples do not pay for the integers
    assert not any("screen" in path for path in paths())


def test_it_gives_up_where_the_bound_does_not_bite():
    x, y, _ = problem(2100, 4096, 64)
    x[:, 0] = y[:, 0] = 1000
    otcuda.backend_info(reset=True)
    otcuda.power_argmax(x, y, nearest(y))
    ran = paths()
    level = otcuda.backend_info()["simd_level"]
    assert ran[f"power_argmax/{level}"]["items"] == 2100
    assert ran["power_argmax/screen_fallbacks"]["items"] == 2100
    assert "power_argmax/screen" not in ran  # some of the targets were enough to see it


def test_in_low_dimension_it_gives_up_where_chains_would_take_longer():
    # Some ten to hundreds a sample, of so few terms that getting at the rows is most of each.
    x, y, _ = problem(2048, 65_536, 8)
    x[:, :4], y[:, :4] = 30 * x[:, :4], 30 * y[:, :4]
    otcuda.backend_info(reset=True)
    otcuda.power_argmax(x, y, nearest(y))
    assert "power_argmax/screen" not in paths()
    x, y, _ = problem(8192, 4096, 16)
    x, y = (a / np.arange(1, 17, dtype="f4") for a in (x, y))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    otcuda.power_argmax(x, y, nearest(y))
    assert "power_argmax/screen" not in paths()


def test_in_high_dimension_a_trial_would_take_too_much_of_a_small_call():
    x, y, h = problem(256, 2048, 1024)
    otcuda.backend_info(reset=True)
    otcuda.power_argmax(x, y, h)
    assert not any("screen" in path for path in paths())
    otcuda.PowerIndex(y, h, tree=False).argmax(x)
    assert paths()["power_argmax/screen"]["items"] == 256


def test_it_gives_up_where_no_unit_fits():
    x, y, _ = problem(2100, 4096, 64)
    otcuda.backend_info(reset=True)
    otcuda.power_argmax(x, np.repeat(y[:1], 4096, 0), np.zeros(4096, "f4"))
    assert paths()["power_argmax/screen_fallbacks"]["items"] == 2100
    h = nearest(y)
    h[::2] = -np.inf  # and not because every other target is dead
    otcuda.power_argmax(x, y, h)
    assert paths()["power_argmax/screen"]["items"] == 2100


def test_a_trial_meets_near_duplicates_and_steps_round_wild_samples():
    x, y, h = problem(2100, 4096, 64)
    rng = np.random.default_rng(1)
    near = y[np.arange(4096) // 64] + np.float32(1e-6) * rng.standard_normal(y.shape, np.float32)
    otcuda.backend_info(reset=True)
    otcuda.power_argmax(x, near, nearest(near))
    assert "power_argmax/screen" not in paths()  # whatever one of eight targets would have said
    x[:64] = np.nan
    otcuda.power_argmax(x, y, h)
    assert paths()["power_argmax/screen"]["items"] == 2100 - 64


def test_an_index_remembers_that_it_gave_up_until_the_heights_change():
    x, y, h = problem(200, 4096, 64)
    y[:, 0] = 4000
    far = x.copy()
    far[:, 0] = 4000
    index = otcuda.PowerIndex(y, nearest(y), tree=False)
    otcuda.backend_info(reset=True)
    index.argmax(far)
    assert paths()["power_argmax/screen_fallbacks"]["items"] >= 100
    index.argmax(far)
    assert not any("screen" in path for path in paths())
    index.set_heights(h)
    index.argmax(far)
    assert any("screen" in path for path in paths())


def test_bfloat16_takes_over_where_bytes_give_up():
    if "bf16" not in native_names():
        pytest.skip("this CPU has no products of bfloat16")
    x, y, _ = problem(512, 8192, 64)
    x[:, :4], y[:, :4] = 30 * x[:, :4], 30 * y[:, :4]  # a few large coordinates make bytes coarse
    index = otcuda.PowerIndex(y, nearest(y), tree=False)
    want = index.argmax(x, method="brute")
    for _ in range(2):  # found out, and remembered
        otcuda.backend_info(reset=True)
        found = index.argmax(x)
        ran = paths()
        assert [a.tobytes() for a in found] == [a.tobytes() for a in want]
        assert ran["power_argmax/screen_bfloat16"]["items"] == 512
        assert "power_argmax/screen_fallbacks" not in ran
        assert ran["power_argmax/screen_chains"]["items"] < 512 * 40
    otcuda.set_simd_level("vnni")  # bytes alone
    index.set_heights(nearest(y))
    index.argmax(x)
    otcuda.set_simd_level("auto")
    assert "power_argmax/screen_bfloat16" not in paths()


def native_names():
    """Levels that can be forced, by the error that names them."""
    with pytest.raises(otcuda.BackendError) as error:
        otcuda.set_simd_level("none such")
    return str(error.value)


def test_what_is_given_up_was_not_worked_on_for_long(screen_level):
    x, y, _ = problem(512, 8192, 40)
    y *= np.exp(3 * np.random.default_rng(0).standard_normal((8192, 1))).astype("f4")
    h = nearest(y)
    index = otcuda.PowerIndex(y, h, tree=False)
    otcuda.backend_info(reset=True)
    index.argmax(x)
    ran = paths()
    assert ran["power_argmax/screen_fallbacks"]["items"] > 400
    assert ran["power_argmax/screen_chains"]["items"] < 0.01 * 512 * 8192


def test_an_index_screens_few_samples_where_bytes_are_that_cheap():
    x, y, h = problem(9, 4096, 64)
    index = otcuda.PowerIndex(y, h, tree=False)
    for B in (1, 9):
        otcuda.backend_info(reset=True)
        index.argmax(x[:B])
        assert ("power_argmax/screen" in paths()) == native.simd_vnni()


@pytest.mark.parametrize("B", [1, 16, 17, 32, 33, 48, 49, 64, 65, 96, 112, 113, 129])
def test_samples_that_fill_no_block(B, screen_level):
    rng = np.random.default_rng(B)
    x, y = (rng.standard_normal((n, 24)).astype("f4") for n in (B, 1501))
    y[700:1400] = y[:700]
    assert_same(x, y, nearest(y))
    assert paths()["power_argmax/screen"]["items"] == B


def test_a_change_of_level_makes_new_integers():
    x, y, h = problem(70, 2100, 40)
    index = otcuda.PowerIndex(y, h, tree=False)
    want = index.argmax(x, method="brute")
    for level in ("avx2", "vnni", "portable", "vnni"):
        try:
            otcuda.set_simd_level(level)
        except otcuda.BackendError:
            continue
        otcuda.backend_info(reset=True)
        found = index.argmax(x, method="screen")
        assert [a.tobytes() for a in found] == [a.tobytes() for a in want]
        assert ("power_argmax/screen_vnni" in paths()) == (level == "vnni")
    otcuda.set_simd_level("auto")


def test_auto_of_an_index_is_the_screen_in_many_dimensions():
    x, y, h = problem(130, 4096, 64)
    index = otcuda.PowerIndex(y, h)
    otcuda.backend_info(reset=True)
    index.argmax(x)
    assert paths()["power_argmax/screen"]["items"] == 130


def test_far_groups_are_not_looked_at():
    x, y, h = problem(160, 20_000, 32)
    h[4096:] -= np.float32(1e5)
    index = otcuda.PowerIndex(y, h, tree=False)
    assert_same(x, y, h, index)


def test_heights_change_and_samples_move():
    rng = np.random.default_rng(1)
    x, y, h = problem(300, 3000, 24)
    index = otcuda.PowerIndex(y, h, tree=False)
    for scale, shift in ((0, 0), (0.1, 3), (10, -50)):
        index.set_heights((h + scale * rng.standard_normal(len(h))).astype("f4"))
        assert_same(x + np.float32(shift), y, None, index)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads):
    x, y, _ = problem(1000, 3000, 33)
    y[1500:] = y[:1500]
    otcuda.set_num_threads(threads)
    try:
        assert_same(x, y, nearest(y))
    finally:
        otcuda.set_num_threads(0)


def test_nothing_of_size_samples_times_targets_is_stored():
    x, y, h = problem(2048, 5000, 64)
    before = native.memory_in_use()
    native.reset_memory_peak()
    otcuda.backend_info(reset=True)
    otcuda.power_argmax(x, y, h)
    assert "power_argmax/screen" in paths()
    assert 0 < native.memory_peak() - before < 4 << 20
    assert native.memory_in_use() == before


def test_failed_allocations_leave_nothing_behind():
    x, y, h = problem(2060, 4096, 64)
    before, failures = native.memory_in_use(), 0
    for k in range(1, 60):
        native.fail_allocation(k)
        try:
            otcuda.power_argmax(x, y, h)
        except (otcuda.LimitError, MemoryError):
            failures += 1
        assert native.memory_in_use() == before
    native.fail_allocation(0)
    assert failures >= 10

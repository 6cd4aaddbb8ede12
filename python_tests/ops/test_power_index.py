# SPDX-License-Identifier: Apache-2.0
"""PowerIndex: the bits of power_argmax, whatever the tree leaves out."""

from __future__ import annotations

import threading

import argmax_cases
import numpy as np
import pytest

import otcuda
from otcuda._ops import native


def assert_same(index, x, y, h, method="tree"):
    value, winner = index.argmax(x, method=method)
    want_value, want = otcuda.power_argmax(x, y, h)
    assert np.array_equal(winner, want)
    assert np.array_equal(np.asarray(value).view("u1"), np.asarray(want_value).view("u1"))


def normal(rng, B, N, D, dtype):
    x, y = (rng.standard_normal((n, D)).astype(dtype) for n in (B, N))
    return x, y, (-np.square(y).sum(1) / 2).astype(dtype)


def offset(rng, B, N, D, dtype):
    """Far from the origin scores agree in most digits: the slack decides."""
    x, y, _ = normal(rng, B, N, D, dtype)
    x, y = x + dtype(100), y + dtype(100)
    return x, y, (-np.square(y).sum(1) / 2).astype(dtype)


def twins(rng, B, N, D, dtype):
    """Each target eight times over, spread by the median splits: the lowest index must win."""
    x, y, _ = normal(rng, B, N, D, dtype)
    y = y[np.arange(N) % (N // 8)]
    return x, y, (-np.square(y).sum(1) / 2).astype(dtype)


def on_grid(rng, B, N, D, dtype):
    """Samples halfway between targets of a grid: exact ties of several."""
    x, y = (rng.integers(-4, 5, (n, D)).astype(dtype) for n in (B, N))
    return x + dtype(0.5), y, (-np.square(y).sum(1) / 2).astype(dtype)


def mixed(rng, B, N, D, dtype):
    x, y, h = normal(rng, B, N, D, dtype)
    y *= np.exp(3 * rng.standard_normal((N, 1))).astype(dtype)
    h = (rng.standard_normal(N) * 1e4).astype(dtype)
    h[::3] = -np.inf
    x[:5] = 0
    return x, y, h


def wild_samples(rng, B, N, D, dtype):
    x, y, h = normal(rng, B, N, D, dtype)
    x[3], x[7, 0], x[11] = np.nan, np.inf, 3e15
    x[12] = 1e-30
    return x, y, h


DATA = [normal, offset, twins, on_grid, mixed, wild_samples]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("D", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("data", DATA)
def test_the_tree_gives_the_bits_of_power_argmax(data, D, dtype, simd_level):
    x, y, h = data(np.random.default_rng(D), 130, 1800, D, dtype)
    index = otcuda.PowerIndex(y, h)
    assert index.has_tree
    otcuda.backend_info(reset=True)
    index.argmax(x, method="tree")
    assert otcuda.backend_info()["paths"]["power_argmax/tree"]["items"] >= 127
    assert_same(index, x, y, h)


@pytest.mark.parametrize("N", [512, 513, 527, 528, 529, 4095, 4097])
def test_every_way_to_split(N, simd_level):
    x, y, h = normal(np.random.default_rng(N), 200, N, 2, np.float32)
    assert_same(otcuda.PowerIndex(y, h), x, y, h)


def test_samples_are_searched_in_turn_whatever_their_number(simd_level):
    # Eight at a time, in stretches; some are out of the tree's range, alone or side by side.
    rng = np.random.default_rng(5)
    y = rng.standard_normal((600, 3)).astype("f4")
    index = otcuda.PowerIndex(y, (-np.square(y).sum(1) / 2).astype("f4"))
    for B in (*range(1, 35), 300):
        x = rng.standard_normal((B, 3)).astype("f4")
        x[rng.random(B) < 0.3, 1] = np.float32(3e20)
        x[B // 2, 0] = np.nan
        for argmax in (index.argmax, lambda x, method: index.topk(x, 3, method=method)):
            found, want = argmax(x, method="tree"), argmax(x, method="brute")
            assert [a.tobytes() for a in found] == [a.tobytes() for a in want]


def test_golden_cases(simd_level):
    trees = 0
    for _, x, y, h in argmax_cases.cases():
        index = otcuda.PowerIndex(y, h)
        trees += index.has_tree
        assert_same(index, x, y, h, "tree" if index.has_tree else "auto")
    assert trees > 20


def test_tight_boxes_where_the_slack_is_needed():
    # All targets score the same up to rounding: without slack the wrong one of them wins.
    rng = np.random.default_rng(5)
    angle = rng.uniform(0, 2 * np.pi, 3000)
    y = (np.stack([np.cos(angle), np.sin(angle)], 1) + 1000).astype("f4")
    h = (-np.square(y.astype("f8")).sum(1) / 2).astype("f4")
    x = np.full((300, 2), 1000, "f4") + rng.normal(0, 1e-4, (300, 2)).astype("f4")
    assert_same(otcuda.PowerIndex(y, h), x, y, h)


def test_heights_change_and_a_fresh_index_agrees():
    rng = np.random.default_rng(1)
    x, y, h = normal(rng, 300, 3000, 3, np.float32)
    index = otcuda.PowerIndex(y)
    with pytest.raises(otcuda.ArgumentError, match="set_heights"):
        index.argmax(x)
    for scale in (0, 0.1, 10):
        moved = (h + scale * rng.standard_normal(len(h))).astype("f4")
        index.set_heights(moved)
        assert_same(index, x, y, moved)
    for bad in (np.nan, np.inf):  # out of the tree's range, so the blocked loop answers
        moved = h.copy()
        moved[5] = bad
        index.set_heights(moved)
        assert_same(index, x, y, moved)
    index.set_heights(np.full_like(h, -np.inf))
    assert_same(index, x, y, np.full_like(h, -np.inf))
    index.set_heights(h)
    assert_same(index, x, y, h)


def test_auto_takes_the_tree_where_it_wins_and_leaves_it_where_not():
    rng = np.random.default_rng(2)
    for D, path in ((2, "power_argmax/tree"), (32, None)):
        x, y, h = normal(rng, 256, 100_000, D, np.float32)
        index = otcuda.PowerIndex(y, h)
        otcuda.backend_info(reset=True)
        assert_same(index, x, y, h, "auto")
        assert ("power_argmax/tree" in otcuda.backend_info()["paths"]) == (path is not None)
        paths = otcuda.backend_info(reset=True)["paths"]
        if path:  # a small part of the targets was looked at
            assert paths["power_argmax/tree_scores"]["items"] < 0.02 * 256 * 100_000


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads):
    x, y, h = twins(np.random.default_rng(3), 1000, 4000, 3, np.float32)
    otcuda.set_num_threads(threads)
    try:
        assert_same(otcuda.PowerIndex(y, h), x, y, h)
    finally:
        otcuda.set_num_threads(0)


def test_calls_from_several_threads():
    x, y, h = normal(np.random.default_rng(4), 500, 3000, 3, np.float32)
    index, other = otcuda.PowerIndex(y, h), (h * np.float32(0.5))
    allowed = [otcuda.power_argmax(x, y, a)[1].tolist() for a in (h, other)]
    found = []

    def ask():
        found.extend(index.argmax(x, method="tree")[1].tolist() in allowed for _ in range(5))

    team = [threading.Thread(target=ask) for _ in range(3)]
    for thread in team:
        thread.start()
    for k in range(10):
        index.set_heights((h, other)[k % 2])
    for thread in team:
        thread.join()
    assert found == [True] * 15


def test_torch_and_layouts(rng):
    torch = pytest.importorskip("torch")
    x, y = torch.randn(90, 6, generator=rng)[:, ::2], torch.randn(3, 700, generator=rng).T
    h = -y.square().sum(1) / 2
    index = otcuda.PowerIndex(y, h)
    value, winner = index.argmax(x, method="tree")
    assert isinstance(value, torch.Tensor)
    want_value, want = otcuda.power_argmax(x, y, h)
    assert torch.equal(value, want_value)
    assert torch.equal(winner, want)
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    assert index.argmax(frozen)[1].tolist() == want.tolist()


def test_errors_are_named():
    y = np.zeros((5, 3), "f4")
    with pytest.raises(otcuda.ShapeError, match=r"y \[5\]"):
        otcuda.PowerIndex(y[:, 0])
    with pytest.raises(otcuda.ArgumentError, match="int64, expected float32"):
        otcuda.PowerIndex(y.astype("i8"))
    with pytest.raises(otcuda.ArgumentError, match="no target"):
        otcuda.PowerIndex(y[:0])
    index = otcuda.PowerIndex(y, np.zeros(5, "f4"))
    with pytest.raises(otcuda.ShapeError, match=r"h \[4\]"):
        index.set_heights(np.zeros(4, "f4"))
    with pytest.raises(otcuda.ShapeError, match=r"x \[2, 4\]"):
        index.argmax(np.zeros((2, 4), "f4"))
    with pytest.raises(otcuda.ArgumentError, match="x is float64, y is float32"):
        index.argmax(np.zeros((2, 3)))
    with pytest.raises(otcuda.ArgumentError, match="'fast', expected auto, brute, screen or tree"):
        index.argmax(y, method="fast")
    with pytest.raises(otcuda.ArgumentError, match="fewer than 512"):
        index.argmax(y, method="tree")
    assert index.argmax(y[:0])[1].shape == (0,)


def test_failed_allocations_leave_nothing_behind():
    x, y, h = normal(np.random.default_rng(6), 70, 600, 2, np.float32)
    before, failures = native.memory_in_use(), 0
    for k in range(1, 60):
        native.fail_allocation(k)
        try:
            otcuda.PowerIndex(y, h).argmax(x)
        except (otcuda.LimitError, MemoryError):
            failures += 1
        assert native.memory_in_use() == before
    native.fail_allocation(0)
    assert failures >= 10


# --- topk, gap, mass, out -------------------------------------------------------------------------


def assert_same_list(index, x, y, h, k, method="tree"):
    value, place = index.topk(x, k, method=method)
    want_value, want = otcuda.power_topk(x, y, h, k)
    assert np.array_equal(place, want)
    numbers = want >= 0
    assert np.asarray(value)[numbers].tobytes() == np.asarray(want_value)[numbers].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("D", [1, 3, 7])
@pytest.mark.parametrize("data", DATA)
def test_the_tree_gives_the_lists_of_power_topk(data, D, dtype, simd_level):
    x, y, h = data(np.random.default_rng(D), 90, 1800, D, dtype)
    index = otcuda.PowerIndex(y, h)
    for k in (1, 2, 33):
        otcuda.backend_info(reset=True)
        index.topk(x, k, method="tree")
        path = otcuda.backend_info()["paths"]["power_topk/tree"]
        assert path["items"] >= 87
        assert_same_list(index, x, y, h, k)


def test_lists_where_few_targets_live():
    rng = np.random.default_rng(8)
    x, y, h = normal(rng, 70, 900, 2, np.float32)
    h[rng.permutation(900)[:890]] = -np.inf  # ten are left, and -inf is a number
    index = otcuda.PowerIndex(y, h)
    assert_same_list(index, x, y, h, 5)
    assert_same_list(index, x, y, h, 20)
    assert (index.topk(x, 20)[0][:, 10:] == -np.inf).all()


def test_auto_takes_the_tree_for_lists_where_it_wins():
    rng = np.random.default_rng(2)
    for D, wins in ((2, True), (32, False)):
        x, y, h = normal(rng, 256, 100_000, D, np.float32)
        index = otcuda.PowerIndex(y, h)
        for _ in range(2):  # the second call remembers
            otcuda.backend_info(reset=True)
            assert_same_list(index, x, y, h, 8, "auto")
            paths = otcuda.backend_info()["paths"]
            assert ("power_topk/tree" in paths) == wins
        if wins:
            assert paths["power_topk/tree_scores"]["items"] < 0.05 * 256 * 100_000


@pytest.mark.parametrize("method", ["auto", "tree", "brute"])
def test_gap_and_mass_of_an_index(method):
    rng = np.random.default_rng(9)
    x, y, h = twins(rng, 200, 1600, 3, np.float32)
    w = rng.random(200).astype("f4")
    options = {"return_gap": True, "return_mass": True, "weights": w}
    got = otcuda.PowerIndex(y, h).argmax(x, method=method, **options)
    for a, b in zip(got, otcuda.power_argmax(x, y, h, **options), strict=True):
        assert a.tobytes() == b.tobytes()
    assert (got[2] == 0).all()  # every winner has its twin


def test_out_of_an_index():
    x, y, h = normal(np.random.default_rng(3), 100, 700, 2, np.float32)
    index = otcuda.PowerIndex(y, h)
    out = np.empty((100, 4), "f4"), np.empty((100, 4), "i8")
    assert index.topk(x, 4, out=out)[0] is out[0]
    assert out[1].tolist() == otcuda.power_topk(x, y, h, 4)[1].tolist()
    one = np.empty(100, "f4"), np.empty(100, "i8")
    for gap in (False, True):
        one[1][:] = 0
        assert index.argmax(x, out=one, return_gap=gap)[1] is one[1]
        assert one[1].tolist() == out[1][:, 0].tolist()
    with pytest.raises(otcuda.ShapeError, match=r"out\[0\] is \[100\], expected \[100, 4\]"):
        index.topk(x, 4, out=one)


def test_halves_are_widened():
    x, y, h = (a.astype("f2") for a in normal(np.random.default_rng(3), 100, 700, 2, np.float32))
    index = otcuda.PowerIndex(y, h)
    assert index.dtype == "float32"
    assert_same(index, x, y, h)
    assert_same(index, x.astype("f4"), y, h)
    torch = pytest.importorskip("torch")
    rounded = [torch.from_numpy(a.astype("f4")).bfloat16() for a in (x, y, h)]
    got = otcuda.PowerIndex(*rounded[1:]).argmax(rounded[0])
    for a, b in zip(got, otcuda.power_argmax(*rounded), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("k", [None, 3])
def test_gradients_of_an_index_are_those_of_the_ops(k):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x, y, h = (torch.from_numpy(a) for a in normal(rng, 70, 600, 2, np.float64))
    x[1, 0] = torch.nan
    index, grads = otcuda.PowerIndex(y), []
    for use_index in (True, False):
        leaves = x.clone().requires_grad_(), h.clone().requires_grad_()
        if use_index:
            index.set_heights(2 * leaves[1])  # in a graph
            value = index.argmax(leaves[0])[0] if k is None else index.topk(leaves[0], k)[0]
        else:
            given = leaves[0], y, 2 * leaves[1]
            value = otcuda.power_argmax(*given)[0] if k is None else otcuda.power_topk(*given, k)[0]
        (value[torch.isfinite(value)] ** 2).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    index.set_heights(h)  # needs none
    assert not index.argmax(x)[0].requires_grad
    with torch.no_grad():
        assert not index.argmax(x.clone().requires_grad_())[0].requires_grad


def test_gradients_of_an_index_twice():
    torch = pytest.importorskip("torch")
    x, y, h = (torch.from_numpy(a) for a in normal(np.random.default_rng(4), 4, 9, 2, np.float64))
    index = otcuda.PowerIndex(y)

    def values(x, h):
        index.set_heights(h)
        value, _, gap = index.argmax(x, return_gap=True)
        return value, gap, index.topk(x, 3)[0]

    inputs = x.requires_grad_(), h.requires_grad_()
    assert torch.autograd.gradcheck(values, inputs)
    assert torch.autograd.gradgradcheck(values, inputs)


def test_more_errors_are_named():
    y = np.zeros((5, 3), "f4")
    index = otcuda.PowerIndex(y, np.zeros(5, "f4"))
    with pytest.raises(otcuda.ArgumentError, match="k is 65, expected 1 to 64"):
        index.topk(y, 65)
    with pytest.raises(otcuda.ArgumentError, match="'best', expected auto, brute, screen or tree"):
        index.topk(y, 2, method="best")
    with pytest.raises(otcuda.ArgumentError, match="weights are for return_mass"):
        index.argmax(y, weights=np.zeros(5, "f4"))
    with pytest.raises(otcuda.ArgumentError, match=r"index\[1\] is 7, expected -1 to N - 1 = 4"):
        index._handle.targets(np.array([0, 7]), np.empty((2, 3), "f4"))

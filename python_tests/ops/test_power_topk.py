# SPDX-License-Identifier: Apache-2.0
"""power_topk: the contract of csrc/common/power_topk.h, bit for bit, on every level."""

from __future__ import annotations

import argmax_cases
import exact
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import otcuda
from otcuda import _ops, _power, reference

SHAPES = [
    *[(B, 40, 3, 5) for B in (0, 1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 129)],
    *[(9, N, 4, 8) for N in (1, 5, 6, 7, 8, 23, 24, 25, 97, 4099)],
    *[(9, 30, D, 3) for D in (0, 1, 2, 3, 4, 5, 17, 64, 257)],
    *[(9, 200, 4, k) for k in (1, 2, 7, 8, 9, 15, 16, 17, 33, 63, 64)],
]


def integers(rng, *shape, dtype=torch.float32):
    """Small integers: every product and sum is exact in float32, so equality is the right test."""
    return torch.randint(-8, 9, shape, generator=rng).to(dtype)


def problem(rng, *shape, dtype=torch.float32):
    """Normal samples and targets of [.., B, N, D], heights of the nearest neighbour."""
    *groups, B, N, D = shape
    x, y = (torch.randn(*groups, n, D, generator=rng, dtype=dtype) for n in (B, N))
    return x, y, -y.square().sum(-1) / 2


def assert_same_bits(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
        numbers = ~np.isnan(b)
        assert a[numbers].tobytes() == b[numbers].tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "N", "D", "k"), SHAPES)
def test_equals_reference_where_arithmetic_is_exact(B, N, D, k, dtype, rng, simd_level):
    x, y, h = (integers(rng, *s, dtype=dtype) for s in ((B, D), (N, D), (N,)))
    otcuda.backend_info(reset=True)
    got = otcuda.power_topk(x, y, h, k)
    if k > 1 and B > 0:
        path = otcuda.backend_info()["paths"][f"power_topk/{simd_level}"]
        assert path == {"calls": 1, "items": B}
    torch.testing.assert_close(
        got, reference.power_topk(x, y, h, k), rtol=0, atol=0, equal_nan=True
    )


def test_golden_cases_rounding_by_rounding(simd_level):
    small = [shape for shape in argmax_cases.SHAPES if np.prod(shape) < 200_000]
    for name, x, y, h in argmax_cases.cases(small):
        assert_same_bits(otcuda.power_topk(x, y, h, 5), exact.power_topk(x, y, h, 5))
        first = otcuda.power_topk(x, y, h, 1)
        value, index = otcuda.power_argmax(x, y, h)
        assert np.array_equal(first[1][:, 0], index), name
        assert first[0].tobytes() == value.tobytes()


@pytest.mark.parametrize("dtype", ["f4", pytest.param("f8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(argmax_cases.HARD))
def test_hard_cases(name, dtype, simd_level):
    x, y, h = argmax_cases.hard_case(name, dtype)
    x = x[: 20 if dtype == "f8" else 70]
    got = otcuda.power_topk(x, y, h, 20)
    assert_same_bits(got, exact.power_topk(x, y, h, 20))
    value, index = otcuda.power_argmax(x, y, h)
    assert_same_bits((got[0][:, 0], got[1][:, 0]), (value, index))


special_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, np.inf, -np.inf, np.nan])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_special_values_follow_the_rules(data):
    B, N, D, k = (data.draw(st.integers(1, most)) for most in (3, 30, 3, 12))
    numbers = data.draw(st.lists(special_values, min_size=99, max_size=99))
    x, y, h = (
        np.resize(np.roll(numbers, n), shape).astype("f4")
        for n, shape in enumerate([(B, D), (N, D), (N,)])
    )
    assert_same_bits(otcuda.power_topk(x, y, h, k), exact.power_topk(x, y, h, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "N", "D"), [(1, 3000, 33), (2, 60_000, 7), (300, 900, 16)])
def test_threads_levels_and_batches_do_not_change_a_bit(B, N, D, dtype, rng):
    x, y, h = problem(rng, B, N, D, dtype=dtype)
    y[N // 2 :], h[N // 2 :] = y[: N - N // 2].clone(), h[: N - N // 2].clone()  # twins
    otcuda.set_simd_level("portable")
    otcuda.set_num_threads(1)
    wanted = otcuda.power_topk(x, y, h, 10)
    for level in otcuda.backend_info()["simd_levels"]:
        otcuda.set_simd_level(level)
        for threads in (1, 2, 7):
            otcuda.set_num_threads(threads)
            assert_same_bits(otcuda.power_topk(x, y, h, 10), wanted)
    otcuda.set_num_threads(0)
    otcuda.set_simd_level("auto")
    split = [otcuda.power_topk(part, y, h, 10) for part in x.split(3)]
    assert_same_bits([torch.cat(part) for part in zip(*split, strict=True)], wanted)
    assert (wanted[1][:, ::2] + N // 2 == wanted[1][:, 1::2]).all()  # each before its twin


@pytest.mark.parametrize(
    ("G", "B", "N", "D"), [(0, 3, 5, 2), (1, 5, 9, 3), (5, 0, 4, 2), (7, 70, 30, 4)]
)
def test_groups_are_problems_of_their_own(G, B, N, D, rng, threads, simd_level):
    x, y, h = problem(rng, G, B, N, D)
    for op in (otcuda.power_argmax, lambda *a: otcuda.power_topk(*a, 3)):
        got = op(x, y, h)
        assert got[0].shape[:2] == (G, B)
        for g in range(G):
            assert_same_bits([a[g] for a in got], op(x[g], y[g], h[g]))


def test_one_large_group_and_many_small_ones_take_the_same_path_as_alone(rng, threads):
    for shape in ((2, 300, 4000, 16), (40, 20, 300, 5)):
        x, y, h = problem(rng, *shape)
        got = otcuda.power_argmax(x, y, h)
        for g in range(shape[0]):
            assert_same_bits([a[g] for a in got], otcuda.power_argmax(x[g], y[g], h[g]))


def test_ties_with_what_the_warm_up_proved_stay_in(rng, simd_level):
    # Few different scores: the k-th best is met by many, and the warm-up proves just that score.
    x, y = (torch.randint(0, 2, (n, 3), generator=rng).float() for n in (70, 3000))
    h = torch.zeros(3000)
    for k in (1, 2, 9, 40):
        got = otcuda.power_topk(x, y, h, k)
        torch.testing.assert_close(got, reference.power_topk(x, y, h, k), rtol=0, atol=0)


# --- gradients, torch.library ---------------------------------------------------------------------


@pytest.mark.parametrize("groups", [(), (2,)])
def test_gradients(groups, rng):
    inputs = [a.requires_grad_() for a in problem(rng, *groups, 3, 4, 2, dtype=torch.float64)]
    for op in (
        lambda *a: otcuda.power_topk(*a, 3)[0],
        lambda *a: otcuda.power_argmax(*a)[0],
        lambda *a: otcuda.power_argmax(*a, return_gap=True)[2],
    ):
        assert torch.autograd.gradcheck(op, inputs)
        assert torch.autograd.gradgradcheck(op, inputs)


def test_missing_places_hand_on_no_gradient(rng):
    x, y, h = (a.requires_grad_() for a in problem(rng, 4, 3, 3))
    with torch.no_grad():
        x[1, 0] = torch.nan
    value, index = otcuda.power_topk(x, y, h, 5)
    assert not index.requires_grad
    value[index >= 0].sum().backward()
    assert x.grad[1].tolist() == [0, 0, 0]
    torch.testing.assert_close(x.grad[0], y.detach().sum(0))
    assert h.grad.tolist() == [3, 3, 3]


@pytest.mark.parametrize("groups", [(), pytest.param((2,), marks=pytest.mark.slow)])
def test_opcheck(groups, rng):
    assert _power.registered()
    ops = torch.ops.otcuda
    plain = problem(rng, *groups, 9, 4, 3)
    for inputs in (plain, [a.requires_grad_() for a in problem(rng, *groups, 9, 4, 3)]):
        torch.library.opcheck(ops.power_topk.default, (*inputs, 2))
        if groups:  # alone in test_power_argmax.py
            torch.library.opcheck(ops.power_argmax.default, tuple(inputs))


def everything(x, y, h):
    value, _, gap, mass = otcuda.power_argmax(x, y, h, return_gap=True, return_mass=True)
    top, places = otcuda.power_topk(2 * x, y, h, 3)
    return (value * gap).sum() + mass.double()[..., 0].sum() + (top * top).sum() + places.sum()


@pytest.mark.parametrize("groups", [(), pytest.param((2,), marks=pytest.mark.slow)])
def test_compiles_without_a_graph_break(groups, rng):
    inputs = [a.requires_grad_() for a in problem(rng, *groups, 7, 5, 3, dtype=torch.float64)]
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    got, wanted = compiled(*inputs), everything(*inputs)
    torch.testing.assert_close(got, wanted)
    gradients = torch.autograd.grad(got, inputs), torch.autograd.grad(wanted, inputs)
    torch.testing.assert_close(*gradients)


# --- arrays of all kinds --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype, rng):
    halves = [a.to(dtype) for a in problem(rng, 20, 33, 4)]
    wide = [a.float() for a in halves]
    assert_same_bits(otcuda.power_topk(*halves, 4), otcuda.power_topk(*wide, 4))
    mixed = [halves[0], wide[1], halves[2]]
    assert_same_bits(otcuda.power_argmax(*mixed), otcuda.power_argmax(*wide))


def test_layouts_do_not_matter_and_inputs_may_be_read_only(rng):
    x, y, h = problem(rng, 9, 21, 5)
    wanted = otcuda.power_topk(x, y, h, 4)
    x2, y2 = torch.empty(9, 10)[:, ::2], torch.empty(5, 21).T
    for view, source in ((x2, x), (y2, y)):
        view.copy_(source)
    assert_same_bits(otcuda.power_topk(x2, y2, h, 4), wanted)
    arrays = [a.numpy() for a in (x2, y2, h)]
    for array in arrays:
        array.flags.writeable = False
    assert_same_bits(otcuda.power_topk(*arrays, 4), wanted)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("strided", [False, True])
def test_out_is_written_in_place(kind, strided, rng):
    x, y, h = problem(rng, 9, 21, 5)
    value, index = torch.zeros(18, 3), torch.zeros(18, 3, dtype=torch.int64)
    value, index = (a[::2] if strided else a[:9] for a in (value, index))
    if kind == "numpy":
        x, y, h, value, index = (a.numpy() for a in (x, y, h, value, index))
    got = otcuda.power_topk(x, y, h, 3, out=(value, index))
    assert got[0] is value
    assert got[1] is index
    assert_same_bits(got, otcuda.power_topk(x, y, h, 3))
    one = value[:, 0], index[:, 0]  # no row of its own: written through a copy
    got = otcuda.power_argmax(x, y, h, out=one, return_gap=True, return_mass=True)
    assert got[0] is one[0]
    assert_same_bits(got, otcuda.power_argmax(x, y, h, return_gap=True, return_mass=True))


def test_autograd_hears_of_what_was_written(rng):
    x, y, h = problem(rng, 9, 21, 5)
    out = torch.zeros(9, 3), torch.zeros(9, 3, dtype=torch.int64)
    before = [a._version for a in out]
    otcuda.power_topk(x, y, h, 3, out=out)
    assert [a._version for a in out] > before
    with pytest.raises(otcuda.ArgumentError, match="out= carries no gradient"):
        otcuda.power_topk(x.requires_grad_(), y, h, 3, out=out)


def test_errors_are_named(rng):
    x, y, h = problem(rng, 9, 21, 5)
    good = torch.zeros(9, 3), torch.zeros(9, 3, dtype=torch.int64)
    for k in (0, -1, 65):
        with pytest.raises(otcuda.ArgumentError, match=f"k is {k}, expected 1 to 64"):
            otcuda.power_topk(x, y, h, k)
    bad = [
        (good[0], "pair"),
        ((good[0][:8], good[1]), r"out\[0\] is \[8, 3\], expected \[9, 3\]"),
        ((good[0].double(), good[1]), r"out\[0\] is float64, expected float32"),
        ((good[0], good[1].int()), r"out\[1\] is int32, expected int64"),
        ((good[0].numpy(), good[1]), r"out\[0\] is ndarray"),
        ((x[:, :3], good[1]), r"out\[0\] shares memory"),
    ]
    for out, message in bad:
        with pytest.raises((otcuda.ArgumentError, otcuda.ShapeError), match=message):
            otcuda.power_topk(x, y, h, 3, out=out)
    frozen = good[0].numpy().copy(), good[1].numpy().copy()
    frozen[1].flags.writeable = False
    with pytest.raises(otcuda.ArgumentError, match=r"out\[1\] is read-only"):
        otcuda.power_topk(x.numpy(), y.numpy(), h.numpy(), 3, out=frozen)
    with pytest.raises(otcuda.ShapeError, match=r"takes x \[G, B, D\].*got x \[2, 9, 5\], y \[21"):
        otcuda.power_topk(x.expand(2, 9, 5), y, h, 3)
    with pytest.raises(otcuda.ArgumentError, match="weights are for return_mass"):
        otcuda.power_argmax(x, y, h, weights=torch.ones(9))
    with pytest.raises(otcuda.ShapeError, match=r"weights \[B\]"):
        otcuda.power_argmax(x, y, h, weights=torch.ones(8), return_mass=True)


def test_other_devices_are_refused(rng):
    x, y, h = (a.to("meta") for a in problem(rng, 9, 21, 5))
    with pytest.raises(otcuda.DeviceError, match="found on a CPU"):
        _power._power_topk(x, y, h, 2, _power.TorchArrays)


def test_failed_allocations_leave_nothing_behind(rng):
    x, y, h = problem(rng, 300, 500, 8)
    native = _ops.native
    before, failures = native.memory_in_use(), 0
    otcuda.set_num_threads(3)
    for k in range(1, 20):
        native.fail_allocation(k)
        try:
            otcuda.power_topk(x, y, h, 4)
        except otcuda.LimitError:
            failures += 1
        assert native.memory_in_use() == before
    native.fail_allocation(0)
    otcuda.set_num_threads(0)
    assert failures >= 3


# --- gap and mass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gap_is_the_difference_of_the_two_best(dtype, rng, simd_level):
    x, y, h = (a.numpy().astype(dtype) for a in problem(rng, 70, 50, 4))
    y[40:], h[40:] = y[:10], h[:10]  # some winners have a twin
    value, index, gap = otcuda.power_argmax(x, y, h, return_gap=True)
    assert_same_bits((value, index), otcuda.power_argmax(x, y, h))
    best = np.sort(exact.scores(x, y, h), 1)[:, ::-1]
    assert_same_bits([gap], [best[:, 0] - best[:, 1]])
    assert (gap == 0).any()
    assert (gap > 0).any()


def assert_gap_of_the_lists(x, y, h):
    """All three results against the two best of power_topk."""
    values, indices = (np.asarray(a) for a in otcuda.power_topk(x, y, h, 2))
    second = np.where(indices[..., 1] < 0, -np.inf, values[..., 1]).astype(values.dtype)
    with np.errstate(invalid="ignore"):
        gap = np.where(values[..., 0] == second, 0, values[..., 0] - second).astype(values.dtype)
    got = otcuda.power_argmax(x, y, h, return_gap=True)
    assert_same_bits(got, (values[..., 0], indices[..., 0], gap))


@pytest.mark.parametrize("dtype", ["f4", pytest.param("f8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(argmax_cases.HARD))
def test_gap_in_hard_cases(name, dtype, simd_level):
    assert_gap_of_the_lists(*argmax_cases.hard_case(name, dtype))


@pytest.mark.parametrize(("B", "N"), [(1, 20_000), (70, 9001)])
def test_gap_early_and_late_and_on_any_number_of_threads(B, N, rng, threads, simd_level):
    for x, y, h in (
        problem(rng, B, N, 5),
        [integers(rng, *shape) for shape in ((B, 2), (N, 2), (N,))],  # ties
    ):
        assert_gap_of_the_lists(x, y, h)
        assert_gap_of_the_lists(*(a.expand(2, *a.shape) for a in (x, y, h)))


def test_gap_at_the_edges():
    def gap(h, x=1.0):
        y = np.zeros((len(h), 1), "f4")
        return otcuda.power_argmax(np.full((1, 1), x, "f4"), y, np.array(h, "f4"), return_gap=True)

    inf, nan = np.inf, np.nan
    for h, wanted in [
        ([3], inf), ([3, -inf], inf), ([3, nan], inf), ([nan, 3, 1], 2), ([-inf, -inf], 0),
        ([inf, inf, 1], 0), ([inf, 1], inf), ([2, 2], 0), ([-inf, nan], 0), ([-inf], 0),
    ]:  # fmt: skip
        assert gap(h)[2].tolist() == [wanted], h
    value, index, none = gap([1, 2], nan)
    assert np.isnan([*value, *none]).all()
    assert index.tolist() == [-1]


@pytest.mark.parametrize("weighted", [False, True])
def test_mass_has_the_bits_of_cell_mass(weighted, rng):
    x, y, h = problem(rng, 3, 200, 30, 4)
    x[0, 5] = torch.nan
    w = torch.rand(3, 200, generator=rng) if weighted else None
    *_, mass = otcuda.power_argmax(x, y, h, return_mass=True, weights=w)
    for g in range(3):
        weights = None if w is None else w[g]
        _, index, alone = otcuda.power_argmax(x[g], y[g], h[g], return_mass=True, weights=weights)
        wanted = otcuda.cell_mass(index, 30, weights)
        assert_same_bits([mass[g], alone], [wanted, wanted])
    assert mass[0].sum() == (w[0].sum() - w[0, 5] if weighted else 199)


def test_mass_hands_its_gradient_to_the_weights(rng):
    x, y, h = problem(rng, 20, 5, 2, dtype=torch.float64)
    w = torch.rand(20, generator=rng, dtype=torch.float64).requires_grad_()
    _, index, mass = otcuda.power_argmax(x, y, h, return_mass=True, weights=w)
    (mass * torch.arange(5)).sum().backward()
    assert torch.equal(w.grad, index.double())

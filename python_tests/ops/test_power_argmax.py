# SPDX-License-Identifier: Apache-2.0
"""power_argmax: the contract of csrc/common/power_argmax.h, bit for bit, on every level."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import argmax_cases
import exact
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import otcuda
from otcuda import _ops, _power, reference

GOLDEN = Path(__file__).parents[1] / "golden" / "power_argmax_v1.npz"
SHAPES = [
    *[(B, 100, 5) for B in (0, 1, 2, 3, 4, 5, 11, 12, 13, 23, 24, 25, 31, 33, 63, 64, 65, 129)],
    *[(30, N, 6) for N in (1, 2, 3, 4, 5, 6, 7, 95, 96, 97, 4095, 4099)],
    *[(30, 50, D) for D in (0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 255, 257, 1024)],
]


def integers(rng, *shape, dtype=torch.float32):
    """Small integers: every product and sum is exact in float32, so equality is the right test."""
    return torch.randint(-8, 9, shape, generator=rng).to(dtype)


def problem(rng, B, N, D, dtype=torch.float32):
    """Real numbers and heights of the nearest neighbour, where most targets win somewhere."""
    x, y = (
        torch.randn(B, D, generator=rng, dtype=dtype),
        torch.randn(N, D, generator=rng, dtype=dtype),
    )
    return x, y, -y.square().sum(1) / 2


def assert_same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes() or np.array_equal(a.view("u1"), b.view("u1"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "N", "D"), SHAPES)
def test_equals_reference_where_arithmetic_is_exact(B, N, D, dtype, rng, simd_level):
    x, y, h = (integers(rng, *s, dtype=dtype) for s in ((B, D), (N, D), (N,)))
    torch.testing.assert_close(
        otcuda.power_argmax(x, y, h), reference.power_argmax(x, y, h), rtol=0, atol=0
    )


def test_reproduces_the_golden_file(simd_level):
    otcuda.backend_info(reset=True)
    golden, begin = np.load(GOLDEN), 0
    otcuda.backend_info(reset=True)
    for name, x, y, h in argmax_cases.cases():
        value, index = otcuda.power_argmax(x, y, h)
        end = begin + len(x)
        assert index.tolist() == golden["index"][begin:end].tolist(), name
        assert value.view("u4").tolist() == golden["bits"][begin:end].tolist(), name
        begin = end
    assert begin == len(golden["index"])
    assert list(otcuda.backend_info()["paths"]) == [f"power_argmax/{simd_level}"]


def test_golden_file_is_the_contract_rounding_by_rounding():
    otcuda.backend_info(reset=True)
    golden, begin = np.load(GOLDEN), 0
    small = [shape for shape in argmax_cases.SHAPES if np.prod(shape) < 200_000]
    for name, x, y, h in argmax_cases.cases():
        end = begin + len(x)
        if (len(x), *y.shape) in small:
            value, index = exact.power_argmax(x, y, h)
            assert index.tolist() == golden["index"][begin:end].tolist(), name
            same = (value.view("u4") == golden["bits"][begin:end]) | np.isnan(value)
            assert same.all(), name
        begin = end


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "N", "D"), [(1, 500, 33), (2, 90_000, 65), (700, 900, 16)])
def test_threads_levels_and_batches_do_not_change_a_bit(B, N, D, dtype, rng):
    x, y, h = problem(rng, B, N, D, dtype)
    y[N // 2 :] = y[: N - N // 2]  # every winner has a twin, often in another share
    h = -y.square().sum(1) / 2
    otcuda.set_simd_level("portable")
    otcuda.set_num_threads(1)
    expected = otcuda.power_argmax(x, y, h)
    assert int(expected[1].max()) < N - N // 2  # the lowest index won
    for level in otcuda.backend_info()["simd_levels"]:
        otcuda.set_simd_level(level)
        for threads in (1, 2, 3, 7):
            otcuda.set_num_threads(threads)
            assert_same_bits(otcuda.power_argmax(x, y, h), expected)
    otcuda.set_num_threads(0)
    otcuda.set_simd_level("auto")
    split = [otcuda.power_argmax(part, y, h) for part in x.split(3)]
    assert_same_bits([torch.cat(part) for part in zip(*split, strict=True)], expected)


@pytest.mark.parametrize("D", [16, 257])
def test_float64_scores_are_as_close_as_a_chain_can_be(D, rng, simd_level):
    x, y, h = problem(rng, 50, 70, D, torch.float64)
    value, index = otcuda.power_argmax(x, y, h)
    x16, y16, h16 = (a.numpy().astype(np.longdouble) for a in (x, y, h))
    scores = x16 @ y16.T + h16
    assert index.tolist() == scores.argmax(1).tolist()
    winners = scores.max(1)
    size = np.abs(x16) @ np.abs(y16).T + np.abs(h16)
    bound = (D + 1) * 2.0**-53 * size[np.arange(50), scores.argmax(1)]
    assert (np.abs(value.numpy() - winners) <= bound).all()


special_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, np.inf, -np.inf, np.nan])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_special_values_follow_the_rules(data):
    B, N, D = (data.draw(st.integers(1, most)) for most in (4, 40, 3))
    draw = lambda *shape: np.array(  # noqa: E731
        data.draw(
            st.lists(special_values, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        ),
        "f4",
    ).reshape(shape)
    x, y, h = draw(B, D), draw(N, D), draw(N)
    value, index = otcuda.power_argmax(x, y, h)
    expected_value, expected_index = exact.power_argmax(x, y, h)
    assert index.tolist() == expected_index.tolist()
    np.testing.assert_array_equal(value, expected_value)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nan_rows_dead_cells_and_infinite_heights(dtype, simd_level):
    x = np.ones((70, 2), dtype)
    x[3] = np.nan
    y, h = np.ones((10, 2), dtype), np.full(10, -np.inf, dtype)
    h[:2] = np.nan
    value, index = otcuda.power_argmax(x, y, h)
    assert index[3] == -1
    assert np.isnan(value[3])
    assert set(np.delete(index, 3)) == {2}
    assert (np.delete(value, 3) == -np.inf).all()
    h[7:9] = np.inf
    value, index = otcuda.power_argmax(x, y, h)
    assert set(np.delete(index, 3)) == {7}
    assert (np.delete(value, 3) == np.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_scores_hide_no_winner_beside_them(dtype, rng, simd_level):
    x, y, h = (integers(rng, *s, dtype=dtype) for s in ((100, 3), (203, 3), (203,)))
    h[torch.rand(203, generator=rng) < 0.3] = torch.nan
    torch.testing.assert_close(
        otcuda.power_argmax(x, y, h), reference.power_argmax(x, y, h), rtol=0, atol=0
    )


def test_callers_flush_mode_is_ignored_and_kept(simd_level):
    tiny = np.float32(2.0**-140)
    x, y = np.array([[tiny]]), np.array([[1.0], [1.5]], "f4")
    torch.set_flush_denormal(True)
    try:
        value, index = otcuda.power_argmax(x, y, np.zeros(2, "f4"))
        flushed = float(torch.tensor([1e-40]).mul(1.0))
    finally:
        torch.set_flush_denormal(False)
    assert index.tolist() == [1]
    assert value.view("u4")[0] == np.array([tiny * np.float32(1.5)]).view("u4")[0]
    assert flushed == 0.0


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_layouts_of_the_inputs_do_not_matter(kind, rng):
    x, y, h = problem(rng, 9, 21, 5)
    expected = otcuda.power_argmax(x, y, h)
    x2, y2 = torch.empty(9, 10)[:, ::2], torch.empty(5, 21).T
    h2 = torch.empty(22)[1:]  # 4-byte aligned only
    for view, source in ((x2, x), (y2, y), (h2, h)):
        view.copy_(source)
    if kind == "torch":
        assert_same_bits(otcuda.power_argmax(x2, y2, h2), expected)
        return
    arrays = [a.numpy() for a in (x2, y2, h2)]
    for array in arrays:
        array.flags.writeable = False
    value, index = otcuda.power_argmax(*arrays)
    assert isinstance(value, np.ndarray)
    assert_same_bits((value, index), expected)
    swapped = [a.astype(">f4") for a in arrays]
    assert_same_bits(otcuda.power_argmax(*swapped), expected)


def test_half_precision_is_widened(rng):
    x, y, h = problem(rng, 20, 33, 4)
    for dtype in (torch.float16, torch.bfloat16):
        halves = [a.to(dtype) for a in (x, y, h)]
        assert_same_bits(
            otcuda.power_argmax(*halves), otcuda.power_argmax(*[a.float() for a in halves])
        )
    halves = [a.numpy().astype("f2") for a in (x, y, h)]
    wide = [a.astype("f4") for a in halves]
    assert_same_bits(otcuda.power_argmax(*halves), otcuda.power_argmax(*wide))


def test_dlpack_speakers_are_welcome(rng):
    x, y, h = (a.numpy() for a in problem(rng, 6, 8, 3))

    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return (1, 0)

    got = otcuda.power_argmax(Foreign(x), Foreign(y), Foreign(h))
    assert_same_bits(got, otcuda.power_argmax(x, y, h))


def test_gradient_is_danskins(rng):
    x, y, h = (a.requires_grad_() for a in problem(rng, 7, 5, 3, torch.float64))
    assert torch.autograd.gradcheck(lambda *a: otcuda.power_argmax(*a)[0], (x, y, h))
    assert torch.autograd.gradgradcheck(lambda *a: otcuda.power_argmax(*a)[0], (x, y, h))
    value, index = otcuda.power_argmax(x, y, h)
    assert not index.requires_grad
    (gradient,) = torch.autograd.grad(value.sum(), h)
    assert torch.equal(gradient, reference.cell_mass(index, 5).double())


def test_nan_rows_hand_on_no_gradient(rng):
    x, y, h = (a.requires_grad_() for a in problem(rng, 4, 5, 3))
    with torch.no_grad():
        x[1, 0] = torch.nan
    value, index = otcuda.power_argmax(x, y, h)
    value.sum().backward()
    assert x.grad[1].tolist() == [0, 0, 0]
    assert torch.equal(x.grad[[0, 2, 3]], y[index[[0, 2, 3]]])
    assert y.grad.isfinite().all()
    assert h.grad.sum() == 3


def test_opcheck(rng):
    assert _power.registered()
    op = torch.ops.otcuda.power_argmax.default
    torch.library.opcheck(op, problem(rng, 9, 4, 3))
    x, y, h = (a.requires_grad_() for a in problem(rng, 9, 4, 3))
    torch.library.opcheck(op, (x, y, h))


def squares(x, y, h):
    value, index = otcuda.power_argmax(2 * x, y, h)
    return (value * value).sum() + otcuda.cell_mass(index, 5).double()[0]


@pytest.mark.parametrize("dynamic", [None, pytest.param(True, marks=pytest.mark.slow)])
def test_compiles_without_a_graph_break(dynamic, rng):
    inputs = [a.requires_grad_() for a in problem(rng, 7, 5, 3, torch.float64)]
    compiled = torch.compile(squares, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    got, expected = compiled(*inputs), squares(*inputs)
    torch.testing.assert_close(got, expected)
    gradients = torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs)
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_ops_are_registered_when_they_are_first_traced():
    code = """
import otcuda, torch
def f(x):
    return otcuda.power_argmax(3 * x, x, x[:, 0])[1]
x = torch.eye(4)
print(torch.compile(f, fullgraph=True, backend="eager")(x).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[0, 1, 2, 3]", done.stderr


def test_numpy_never_needs_torch():
    code = """
import sys
sys.modules["torch"] = None  # any import of torch now fails
import numpy as np, otcuda
value, index = otcuda.power_argmax(np.eye(3, dtype="f4"), np.eye(3, dtype="f4"), np.zeros(3, "f4"))
assert index.tolist() == [0, 1, 2] and value.tolist() == [1, 1, 1]
assert otcuda.cell_mass(index, 3).tolist() == [1, 1, 1]
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.parametrize(
    ("x", "y", "h", "error", "message"),
    [
        (
            (2, 3),
            (5, 4),
            5,
            otcuda.ShapeError,
            r"takes x \[B, D\], y \[N, D\], h \[N\]; got x \[2, 3\]",
        ),
        ((2, 3), (5, 3), 4, otcuda.ShapeError, r"h \[4\]"),
        ((2,), (5, 3), 5, otcuda.ShapeError, r"x \[2\]"),
        ((2, 3), (0, 3), 0, otcuda.ArgumentError, "y holds no target"),
    ],
)
@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_bad_shapes_are_named(x, y, h, error, message, make):
    with pytest.raises(error, match=message):
        otcuda.power_argmax(make(x), make(y), make((h,)))


def test_bad_dtypes_and_kinds_are_named():
    x, y, h = torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(5)
    with pytest.raises(otcuda.ArgumentError, match="x, y, h are float32, float64, float32"):
        otcuda.power_argmax(x, y.double(), h)
    with pytest.raises(otcuda.ArgumentError, match="int64, int64, int64; expected all float32"):
        otcuda.power_argmax(x.long(), y.long(), h.long())
    with pytest.raises(otcuda.ArgumentError, match="h is ndarray, x is a torch tensor"):
        otcuda.power_argmax(x, y, h.numpy())
    for missing in range(3):
        arrays = [None if k == missing else a.numpy() for k, a in enumerate((x, y, h))]
        with pytest.raises(otcuda.ArgumentError, match=f"{'xyh'[missing]} is None, expected an ar"):
            otcuda.power_argmax(*arrays)
        with pytest.raises(otcuda.ArgumentError, match=f"{'xyh'[missing]} is None, expected an ar"):
            otcuda.power_topk(*arrays, 1)
    with pytest.raises(otcuda.ArgumentError, match="y is a torch tensor"):
        otcuda.power_argmax(x.numpy(), y, h.numpy())


@pytest.mark.parametrize("bad", [3, b"abcd", np.zeros((2, 3), "c8"), np.zeros(1, "f4"), None])
def test_the_binding_survives_anything(bad):
    good = [np.zeros((2, 3), "f4"), np.zeros((5, 3), "f4"), np.zeros(5, "f4"), np.zeros(2, "f4")]
    good.append(np.zeros(2, "i8"))
    for k in range(5):
        with pytest.raises((TypeError, ValueError)):
            _ops.native.power_argmax(*good[:k], bad, *good[k + 1 :])
    good[3].flags.writeable = False
    with pytest.raises(otcuda.ArgumentError, match="value is read-only"):
        _ops.native.power_argmax(*good)


def test_nothing_of_size_samples_times_targets_is_stored(rng):
    x, y, h = problem(rng, 3000, 20_000, 2)
    otcuda.set_num_threads(2)
    native = _ops.native
    before = native.memory_in_use()
    native.reset_memory_peak()
    otcuda.power_argmax(x, y, h)
    otcuda.set_num_threads(0)
    assert 0 < native.memory_peak() - before < 3 << 20
    assert native.memory_in_use() == before


def test_failed_allocations_leave_nothing_behind(rng):
    x, y, h = problem(rng, 300, 500, 8)
    native = _ops.native
    before, failures = native.memory_in_use(), 0
    otcuda.set_num_threads(3)
    for k in range(1, 40):
        native.fail_allocation(k)
        try:
            otcuda.power_argmax(x, y, h)
        except otcuda.LimitError:
            failures += 1
        assert native.memory_in_use() == before
    native.fail_allocation(0)
    otcuda.set_num_threads(0)
    assert failures >= 3


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupt_comes_through_at_once(threads, rng):
    x, y, h = problem(rng, 4000, 20_000, 64)
    otcuda.set_simd_level("portable")  # about ten seconds of work
    otcuda.set_num_threads(threads)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    begin = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            otcuda.power_argmax(x, y, h)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        otcuda.set_simd_level("auto")
        otcuda.set_num_threads(0)
    assert time.perf_counter() - begin < 1.0


def test_torchs_thread_count_is_respected(rng):
    before = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            otcuda.power_argmax(*problem(rng, 2, 3, 4))
            assert otcuda.backend_info()["num_threads"] == n
    finally:
        torch.set_num_threads(before)

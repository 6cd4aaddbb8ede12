# SPDX-License-Identifier: Apache-2.0
"""cell_mass: counts, fixed-point sums, and that sharing the work changes no bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import otcuda
from otcuda import reference

SIZES = [(0, 1), (1, 1), (7, 3), (1000, 17), (200_001, 65), (300_000, 40_000)]


def cells(rng, B, N):
    """Cells with NaN marks among them."""
    return torch.randint(-1, N, (B,), generator=rng)


@pytest.mark.parametrize(("B", "N"), SIZES)
def test_counts_equal_reference(B, N, rng, threads):
    index = cells(rng, B, N)
    assert torch.equal(otcuda.cell_mass(index, N), reference.cell_mass(index, N))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "N"), SIZES)
def test_dyadic_weights_add_exactly(B, N, dtype, rng, threads):
    index = cells(rng, B, N)
    weights = (torch.randint(-512, 513, (B,), generator=rng) / 256).to(dtype)
    got = otcuda.cell_mass(index, N, weights)
    torch.testing.assert_close(got, reference.cell_mass(index, N, weights), rtol=0, atol=0)


def test_threads_and_order_do_not_change_a_bit(rng):
    B, N = 200_000, 50
    index = cells(rng, B, N)
    weights = torch.randn(B, generator=rng).exp()
    order = torch.randperm(B, generator=rng)
    results = []
    for n in (1, 2, 5):
        otcuda.set_num_threads(n)
        results += [
            otcuda.cell_mass(index, N, weights),
            otcuda.cell_mass(index[order], N, weights[order]),
        ]
    otcuda.set_num_threads(0)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_error_is_within_the_contract(scale, rng):
    B, N = 3000, 7
    index = torch.randint(N, (B,), generator=rng)
    weights = torch.randn(B, generator=rng, dtype=torch.float64) * scale
    got = otcuda.cell_mass(index, N, weights)
    bound = Fraction(B) ** 2 * Fraction(float(weights.abs().max())) / 2**62
    for i in range(N):
        exact = sum(map(Fraction, weights[index == i].tolist()))
        assert abs(Fraction(float(got[i])) - exact) <= bound + abs(exact) / 2**53


def test_subnormals_survive_a_caller_that_flushes_them():
    weights = torch.full((4,), 5e-324, dtype=torch.float64)
    torch.set_flush_denormal(True)
    try:
        mass = otcuda.cell_mass(torch.zeros(4, dtype=torch.int64), 2, weights)
    finally:
        torch.set_flush_denormal(False)
    assert mass.numpy().view(np.int64).tolist() == [4, 0]


def test_numpy_and_dlpack_in_the_same_kind_out():
    index = np.array([3, 0, 3])
    index.flags.writeable = False
    mass = otcuda.cell_mass(index, 4)
    assert isinstance(mass, np.ndarray)
    assert mass.tolist() == [1, 0, 0, 2]
    strided = np.array([3, 9, 0, 9, 3, 9])[::2]
    assert otcuda.cell_mass(strided, 4, np.array([0.5, 1.0, 2.0])).tolist() == [1.0, 0, 0, 2.5]

    class Foreign:
        def __dlpack__(self, **options):
            return np.array([1, 1]).__dlpack__(**options)

        def __dlpack_device__(self):
            return (1, 0)

    assert otcuda.cell_mass(Foreign(), 2).tolist() == [0, 2]


def test_gradient_goes_to_the_weights(rng):
    index = torch.tensor([1, 0, -1, 1])
    weights = torch.randn(4, generator=rng, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    (otcuda.cell_mass(index, 3, weights) * scale).sum().backward()
    assert weights.grad.tolist() == [3.0, 2.0, 0.0, 3.0]


def test_opcheck(rng):
    from otcuda import _ops

    op = _ops.torch_ops().cell_mass.default
    weights = torch.randn(9, generator=rng, requires_grad=True)
    torch.library.opcheck(op, (cells(rng, 9, 4), 4, None))
    torch.library.opcheck(op, (cells(rng, 9, 4), 4, weights))


@pytest.mark.parametrize(
    ("index", "N", "weights", "error", "message"),
    [
        ([0, 4], 4, None, otcuda.ArgumentError, r"index\[1\] is 4, expected -1 .* to N - 1 = 3"),
        ([-2], 4, None, otcuda.ArgumentError, r"index\[0\] is -2"),
        ([0], 0, None, otcuda.ArgumentError, "N is 0, expected at least 1"),
        ([0.0], 4, None, otcuda.ArgumentError, "index is float64, expected int64"),
        ([0], 4, [1], otcuda.ArgumentError, "weights is int64, expected float32 or float64"),
        ([0, 1], 4, [1.0, np.inf], otcuda.ArgumentError, r"weights\[1\] is not finite"),
        ([0, 1], 4, [1.0], otcuda.ShapeError, r"takes index \[B\], weights \[B\]; got index \[2\]"),
        ([[0]], 4, None, otcuda.ShapeError, r"got index \[1, 1\]"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_bad_arguments_are_named(index, N, weights, error, message, kind):
    make = np.array if kind == "numpy" else lambda a: torch.from_numpy(np.array(a))
    with pytest.raises(error, match=message):
        otcuda.cell_mass(make(index), N, None if weights is None else make(weights))


def test_memory_limit_and_failed_allocations_raise_and_leave_nothing(rng):
    from otcuda._ops import native

    index, weights = cells(rng, 1000, 100_000), torch.randn(1000, generator=rng)
    before = native.memory_in_use()
    otcuda.set_memory_limit(1000)
    try:
        with pytest.raises(otcuda.LimitError, match="limit 1000"):
            otcuda.cell_mass(index, 100_000, weights)
    finally:
        otcuda.set_memory_limit(0)
    native.fail_allocation(1)
    with pytest.raises(MemoryError, match="made to fail"):
        otcuda.cell_mass(index, 100_000, weights)
    assert native.memory_in_use() == before

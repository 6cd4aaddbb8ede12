# SPDX-License-Identifier: Apache-2.0
"""heights_adam_step: torch's Adam, rounding by rounding, in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import otcuda
from otcuda import _ops, reference


def problem(rng, N, dtype=torch.float32):
    h, m = (torch.randn(N, generator=rng, dtype=dtype) for _ in range(2))
    v, mass, nu = (torch.rand(N, generator=rng, dtype=dtype) for _ in range(3))
    return h, m, v, mass, nu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [0, 1, 7, 100_000])
def test_equals_reference(step, dtype, rng):
    ours = problem(rng, 1001, dtype)
    theirs = [a.clone().double() for a in ours]
    otcuda.heights_adam_step(*ours, step, lr=0.3, betas=(0.8, 0.95), eps=1e-3)
    reference.heights_adam_step(*theirs, step, lr=0.3, betas=(0.8, 0.95), eps=1e-3)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


def test_many_steps_are_torchs_adam(rng):
    nu = torch.rand(50, generator=rng, dtype=torch.float64)
    h, m, v = (torch.zeros_like(nu) for _ in range(3))
    leaf = torch.zeros_like(nu).requires_grad_()
    adam = torch.optim.Adam([leaf], lr=0.01, eps=1e-8)
    for step in range(1, 40):
        mass = torch.rand(50, generator=rng, dtype=torch.float64)
        otcuda.heights_adam_step(h, m, v, mass, nu, step, lr=0.01)
        leaf.grad = mass - nu
        adam.step()
    torch.testing.assert_close(h, leaf.detach(), rtol=1e-12, atol=1e-13)


def test_every_operation_is_rounded_once(rng):
    h, m, v, mass, nu = (a.numpy() for a in problem(rng, 5000))
    want = [a.copy() for a in (h, m, v)]
    f, b1, b2 = np.float32, 0.9, 0.999
    g = mass - nu
    want[1] = f(b1) * want[1] + f(1 - b1) * g
    want[2] = f(b2) * want[2] + f(1 - b2) * g * g
    power = [1.0, 1.0]
    for k, beta in enumerate((b1, b2)):  # beta^5 by squaring
        power[k] = beta * ((beta * beta) * (beta * beta))
    scale, correction = f(0.05 / (1 - power[0])), f(1 / (1 - power[1]))
    want[0] -= scale * want[1] / (np.sqrt(correction * want[2]) + f(1e-8))
    otcuda.heights_adam_step(h, m, v, mass, nu, 5)
    for got, expected in zip((h, m, v), want, strict=True):
        assert got.tobytes() == expected.tobytes()


def test_threads_do_not_change_a_bit_and_dead_cells_stay(rng, threads):
    h, m, v, mass, nu = problem(rng, 200_000)
    h[::3] = -torch.inf
    once = [a.clone() for a in (h, m, v)]
    otcuda.heights_adam_step(h, m, v, mass, nu, 2)
    otcuda.set_num_threads(1)
    otcuda.heights_adam_step(*once, mass, nu, 2)
    assert all(torch.equal(a, b) for a, b in zip((h, m, v), once, strict=True))
    assert (h[::3] == -torch.inf).all()
    assert h[1::3].isfinite().all()


def test_opcheck_and_version(rng):
    args = (*problem(rng, 9), 3, 0.05, 0.9, 0.999, 1e-8)
    torch.library.opcheck(_ops.torch_ops().heights_adam_step.default, args)
    h, m, v, mass, nu = problem(rng, 9)
    before = h._version
    otcuda.heights_adam_step(h, m, v, mass, nu, 1)
    assert h._version > before
    assert mass._version == 0


def test_bad_arguments_are_named(rng):
    h, m, v, mass, nu = (a.numpy() for a in problem(rng, 6))
    step = otcuda.heights_adam_step
    with pytest.raises(otcuda.ShapeError, match=r"takes h \[N\], .* got h \[6\], m \[6\], v \[6\]"):
        step(h, m, v, mass[:5], nu, 1)
    with pytest.raises(otcuda.ArgumentError, match="float32, float32, float32, float64"):
        step(h, m, v, mass.astype("f8"), nu, 1)
    with pytest.raises(otcuda.ArgumentError, match="step is negative"):
        step(h, m, v, mass, nu, -1)
    with pytest.raises(otcuda.ArgumentError, match=r"betas\[0\] is outside \[0, 1\)"):
        step(h, m, v, mass, nu, 1, betas=(1.0, 0.9))
    with pytest.raises(otcuda.ArgumentError, match="eps is not a positive number"):
        step(h, m, v, mass, nu, 1, eps=0.0)
    with pytest.raises(otcuda.ArgumentError, match="lr is not finite"):
        step(h, m, v, mass, nu, 1, lr=float("nan"))
    with pytest.raises(otcuda.ArgumentError, match="v is list; it is written to"):
        step(h, m, v.tolist(), mass, nu, 1)
    h.flags.writeable = False
    with pytest.raises(otcuda.ArgumentError, match="h is read-only"):
        step(h, m, v, mass, nu, 1)

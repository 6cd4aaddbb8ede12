# SPDX-License-Identifier: Apache-2.0
"""heights_adam_solve: the loop of the public ops, bit for bit, and known solutions."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
import torch
from scipy.special import ndtri

import otcuda
from otcuda import reference


def by_hand(y, nu, source, iterations, batch, lr, seed, state=None, chi2=None):
    """The same iterations with one call an op."""
    state = state or otcuda.HeightsState(*(np.zeros_like(nu) for _ in range(3)))
    chi2 = [] if chi2 is None else chi2
    for k in range(iterations):
        step = state.step + 1
        x = np.empty((batch, y.shape[1]), y.dtype)
        otcuda.source_samples(x, source, seed=seed, stream=step)
        count = otcuda.cell_mass(otcuda.power_argmax(x, y, state.h)[1], len(nu))
        chi2.append((count * (count - 1.0) / nu).sum() / (batch * (batch - 1.0)) - 1)
        mass = (count / batch).astype(nu.dtype)
        otcuda.heights_adam_step(state.h, state.m, state.v, mass, nu, step, lr=lr[k])
        state.step = step
    return state, np.array(chi2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("source", ["normal", "uniform", "gaussian_cdf"])
def test_is_the_loop_of_the_ops(source, dtype, simd_level):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(37, 5)).astype(dtype)
    nu = rng.dirichlet(np.ones(37)).astype(dtype)
    lr = np.linspace(0.1, 0.01, 12)
    state, chi2 = otcuda.heights_adam_solve(y, nu, source, iterations=12, batch=50, lr=lr, seed=4)
    expected, expected_chi2 = by_hand(y, nu, source, 12, 50, lr, 4)
    for name in ("h", "m", "v"):
        assert getattr(state, name).tobytes() == getattr(expected, name).tobytes()
    assert state.step == 12
    np.testing.assert_allclose(chi2, expected_chi2, rtol=1e-12)


def test_equals_reference():
    y = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nu = torch.full((9,), 1 / 9, dtype=torch.float64)
    state, chi2 = otcuda.heights_adam_solve(y, iterations=600, batch=64, lr=0.02, seed=2)
    h, want = reference.heights_adam_solve(y, nu, iterations=600, batch=64, lr=0.02, seed=2)
    assert isinstance(state.h, torch.Tensor)
    # A sample on a border may fall differently in float64: the two then part by a step or two.
    torch.testing.assert_close(state.h, h, rtol=0, atol=0.05)
    np.testing.assert_allclose(chi2[:50], want[:50], rtol=0, atol=1e-6)
    assert abs(state.h.mean()) < 0.05


@pytest.mark.parametrize("threads_twice", [(1, 3)])
def test_threads_and_cuts_do_not_change_a_bit(threads_twice):
    rng = np.random.default_rng(1)
    y = rng.normal(size=(3000, 4)).astype("f4")
    arguments = {"batch": 700, "lr": 0.03, "seed": 9}
    runs = []
    for threads, cuts in zip(threads_twice, ([300], [1, 254, 2, 43]), strict=True):
        otcuda.set_num_threads(threads)
        state, history = None, []
        for iterations in cuts:
            state, chi2 = otcuda.heights_adam_solve(
                y, iterations=iterations, state=state, **arguments
            )
            history.append(chi2)
        runs.append((state, np.concatenate(history)))
    otcuda.set_num_threads(0)
    (a, chi2_a), (b, chi2_b) = runs
    assert a.step == b.step == 300
    assert a.h.tobytes() == b.h.tobytes()
    assert a.v.tobytes() == b.v.tobytes()
    assert chi2_a.tobytes() == chi2_b.tobytes()


def test_two_targets_have_the_normal_quantile_between_them():
    y, nu = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([0.2, 0.8])
    lr = 0.1 * np.linspace(1, 0, 600) ** 2
    state, chi2 = otcuda.heights_adam_solve(y, nu, iterations=600, batch=2000, lr=lr)
    assert abs((state.h[0] - state.h[1]) - 2 * ndtri(0.2)) < 0.02
    assert chi2[0] > 0.3
    assert abs(chi2[-50:].mean()) < 2e-3


@pytest.mark.parametrize("source", ["uniform", "gaussian_cdf"])
def test_cube_splits_where_the_weights_say(source):
    y, nu = np.array([[0.0], [1.0], [3.0]]), np.array([0.5, 0.2, 0.3])
    lr = 0.1 * np.linspace(1, 0, 600) ** 2
    state, _ = otcuda.heights_adam_solve(y, nu, source, iterations=600, batch=2000, lr=lr)
    borders = -np.diff(state.h) / np.diff(y[:, 0])
    assert np.abs(borders - np.cumsum(nu)[:-1]).max() < 0.01


def test_chi2_is_unbiased_and_zero_weights_are_left_out():
    y = np.array([[1.0], [-1.0], [50.0]])
    nu, dead = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.0, -np.inf])
    estimates = []
    for seed in range(200):
        state = otcuda.HeightsState(dead.copy(), np.zeros(3), np.zeros(3))
        _, chi2 = otcuda.heights_adam_solve(y, nu, iterations=1, batch=10, seed=seed, state=state)
        assert state.h[2] == -np.inf
        estimates.append(chi2[0])
    # True value 0; the plug-in estimate would have mean 1 / 10.
    assert abs(np.mean(estimates)) < 4 * np.std(estimates) / np.sqrt(200)
    assert np.std(estimates) > 0.05


def test_callback_sees_progress_and_can_stop():
    y = np.random.default_rng(0).normal(size=(2000, 8)).astype("f4")
    seen = []

    def stop(progress):
        seen.append(progress)
        return len(seen) < 4

    state, chi2 = otcuda.heights_adam_solve(y, iterations=10**6, batch=500, callback=stop)
    assert len(seen) == 4
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] < 1
    assert 0 < state.step == len(chi2) < 10**6
    again, _ = otcuda.heights_adam_solve(y, iterations=state.step, batch=500)
    assert again.h.tobytes() == state.h.tobytes()

    def fail(progress):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        otcuda.heights_adam_solve(y, iterations=10**6, batch=500, callback=fail)


def test_interrupt_leaves_a_whole_number_of_steps():
    y = np.random.default_rng(0).normal(size=(3000, 8)).astype("f4")
    state = otcuda.HeightsState(*(np.zeros(3000, "f4") for _ in range(3)))

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    begin = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            otcuda.heights_adam_solve(y, iterations=10**5, batch=300, state=state)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - begin < 1.5
    assert state.step > 0
    again, _ = otcuda.heights_adam_solve(y, iterations=state.step, batch=300)
    assert again.h.tobytes() == state.h.tobytes()


def test_bad_arguments_are_named():
    y = np.zeros((5, 2), "f4")
    solve = otcuda.heights_adam_solve
    good = {"iterations": 2, "batch": 3}
    with pytest.raises(otcuda.ShapeError, match=r"y \[5, 2\], nu \[4\]"):
        solve(y, np.full(4, 0.25, "f4"), **good)
    with pytest.raises(otcuda.ArgumentError, match="y holds no target"):
        solve(y[:0], **good)
    with pytest.raises(otcuda.ArgumentError, match="y and nu are finite"):
        solve(y * np.nan, **good)
    with pytest.raises(otcuda.ArgumentError, match="source is 'cube'"):
        solve(y, source="cube", **good)
    with pytest.raises(otcuda.ArgumentError, match="batch is 0"):
        solve(y, iterations=2, batch=0)
    with pytest.raises(otcuda.ArgumentError, match="iterations is -1"):
        solve(y, iterations=-1, batch=3)
    with pytest.raises(otcuda.ArgumentError, match=r"lr has shape \[3\], .* one a step, \[2\]"):
        solve(y, lr=[0.1] * 3, **good)
    with pytest.raises(otcuda.ArgumentError, match="batch \\* D is over"):
        solve(y, iterations=1, batch=2**60)
    with pytest.raises(otcuda.ArgumentError, match="y, nu, h, m, v are float32, float64"):
        solve(y, np.full(5, 0.2), **good)


def test_memory_limit_stops_before_it_is_too_late():
    y = np.zeros((5, 2), "f4")
    otcuda.set_memory_limit(1 << 20)
    try:
        with pytest.raises(otcuda.LimitError, match="over the memory limit"):
            otcuda.heights_adam_solve(y, iterations=1, batch=10**9)
    finally:
        otcuda.set_memory_limit(0)

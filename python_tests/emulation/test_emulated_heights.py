# SPDX-License-Identifier: Apache-2.0
"""source_samples and the heights ops: emulated CUDA gives the bits of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.emulator import InOut, Output, aligned

import otcuda

SOURCES = ["normal", "uniform", "gaussian_cdf"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("B", "D", "offset"), [(1, 1, 0), (37, 5, 3), (130, 7, 2**61), (0, 4, 0)])
def test_samples_are_those_of_the_cpu(B, D, offset, source, dtype, emulator):
    want = otcuda.source_samples(np.empty((B, D), dtype), source, seed=9, stream=5, offset=offset)
    out = Output(aligned(np.zeros((B, D), dtype)))
    kind = int(dtype == "f8")
    emulator.call("source_samples", kind, B, D, SOURCES.index(source), 9, 5, offset, out)
    assert out.array.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("step", [0, 1, 5000])
def test_a_step_is_that_of_the_cpu(step, dtype, emulator):
    rng = np.random.default_rng(step)
    h, m, v, mass, nu = (
        aligned(np.abs(rng.normal(size=(5, 600))).astype(dtype)[k]) for k in range(5)
    )
    h[::7] = -np.inf
    state = [a.copy() for a in (h, m, v)]
    otcuda.heights_adam_step(*state, mass, nu, step, lr=0.03)
    numbers = (int(dtype == "f8"), 600, step, 0.03, 0.9, 0.999, 1e-8)
    emulator.call("heights_adam_step", *numbers, InOut(h), InOut(m), InOut(v), mass, nu)
    for got, want in zip((h, m, v), state, strict=True):
        assert got.tobytes() == want.tobytes()


def emulated_solve(emulator, y, nu, state, source, *, iterations, batch, lr, **options):
    """chi2 of the steps made; `state` moves on, as in otcuda.heights_adam_solve."""
    N, D = y.shape
    kind = int(y.dtype == np.float64)
    rates = np.full(iterations, lr) if np.ndim(lr) == 0 else lr
    steps = np.array([state.step], np.int64)
    chi2 = Output(aligned(np.zeros(iterations)))
    h, m, v = (InOut(aligned(a)) for a in (state.h, state.m, state.v))
    numbers = (kind, N, D, batch, iterations, SOURCES.index(source), options.pop("seed", 0), 1)
    host = (options.pop("stop_after", 0), rates.ctypes.data, steps.ctypes.data)
    scratch = emulator.workspace("heights_adam_solve", kind, N, D, batch)
    arrays = (aligned(y), aligned(nu), h, m, v, chi2, scratch)
    try:
        emulator.call("heights_adam_solve", *numbers, *host, *arrays, **options)
    finally:
        state.h, state.m, state.v = h.array, m.array, v.array
        state.step, done = int(steps[0]), int(steps[0]) - state.step
    return chi2.array[:done]


def fresh_state(N, dtype):
    return otcuda.HeightsState(*(np.zeros(N, dtype) for _ in range(3)))


def assert_same_state(got, want):
    assert got.step == want.step
    for name in ("h", "m", "v"):
        assert getattr(got, name).tobytes() == getattr(want, name).tobytes(), name


@pytest.mark.parametrize(
    ("N", "D", "batch", "iterations", "dtype", "source"),
    [
        (37, 5, 50, 4, "f4", "normal"),
        (37, 5, 50, 4, "f8", "gaussian_cdf"),
        (1100, 3, 140, 3, "f4", "uniform"),
        (1, 2, 1, 2, "f4", "normal"),
    ],
)
def test_a_solve_is_that_of_the_cpu(N, D, batch, iterations, dtype, source, emulator):
    rng = np.random.default_rng(N)
    y, nu = rng.normal(size=(N, D)).astype(dtype), rng.dirichlet(np.ones(N)).astype(dtype)
    settings = {"iterations": iterations, "batch": batch, "seed": 4}
    settings["lr"] = np.linspace(0.1, 0.05, iterations)
    want, want_chi2 = otcuda.heights_adam_solve(y, nu, source, **settings)
    state = fresh_state(N, dtype)
    chi2 = emulated_solve(emulator, y, nu, state, source, **settings)
    assert_same_state(state, want)
    assert np.array_equal(chi2, want_chi2, equal_nan=True)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_centring_step_is_that_of_the_cpu(dtype, emulator):
    """Steps 254 to 258, so that the 256th is among them; one dead cell."""
    rng = np.random.default_rng(7)
    y, nu = rng.normal(size=(1030, 2)).astype(dtype), np.full(1030, 1 / 1030, dtype)
    start = rng.normal(size=1030).astype(dtype) + 5
    start[11] = -np.inf
    states = [otcuda.HeightsState(start.copy(), 0 * nu, 0 * nu, 253) for _ in range(2)]
    settings = {"iterations": 5, "batch": 60, "lr": 0.1, "seed": 1}
    _, want = otcuda.heights_adam_solve(y, nu, "normal", state=states[0], **settings)
    chi2 = emulated_solve(emulator, y, nu, states[1], "normal", **settings)
    assert_same_state(states[1], states[0])
    assert chi2.tobytes() == want.tobytes()
    assert abs(np.delete(states[1].h, 11).mean()) < 1


def test_a_solve_that_was_stopped_is_whole_and_goes_on(emulator):
    rng = np.random.default_rng(3)
    y, nu = rng.normal(size=(40, 3)).astype("f4"), np.full(40, 1 / 40, "f4")
    settings = {"batch": 30, "lr": 0.1, "seed": 2}
    want, want_chi2 = otcuda.heights_adam_solve(y, nu, iterations=5, **settings)
    state = fresh_state(40, "f4")
    chi2 = emulated_solve(emulator, y, nu, state, "normal", iterations=3, **settings)
    chi2 = [*chi2, *emulated_solve(emulator, y, nu, state, "normal", iterations=2, **settings)]
    assert_same_state(state, want)
    assert chi2 == want_chi2.tolist()

# SPDX-License-Identifier: Apache-2.0
"""source_samples and the heights ops: emulated CUDA gives the bits of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.calls import (
    SOURCES,
    assert_same_state,
    emulated_samples,
    emulated_solve,
    emulated_step,
)
from emulation.emulator import EmulationError

import otcuda


def fresh_state(N, dtype):
    return otcuda.HeightsState(*(np.zeros(N, dtype) for _ in range(3)))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("B", "D", "offset"), [(1, 1, 0), (37, 5, 3), (130, 7, 2**61), (0, 4, 0)])
def test_samples_are_those_of_the_cpu(B, D, offset, source, dtype, emulator):
    part = {"seed": 9, "stream": 5, "offset": offset}
    want = otcuda.source_samples(np.empty((B, D), dtype), source, **part)
    got = emulated_samples(emulator, B, D, dtype, source, **part)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("step", [0, 1, 5000])
def test_a_step_is_that_of_the_cpu(step, dtype, emulator):
    rng = np.random.default_rng(step)
    h, m, v, mass, nu = np.abs(rng.normal(size=(5, 600))).astype(dtype)
    h[::7] = -np.inf
    got = emulated_step(emulator, h, m, v, mass, nu, step, lr=0.03)
    otcuda.heights_adam_step(h, m, v, mass, nu, step, lr=0.03)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in (h, m, v)]


@pytest.mark.parametrize(
    ("N", "D", "batch", "iterations", "dtype", "source"),
    [
        (37, 5, 50, 4, "f4", "normal"),
        (37, 5, 50, 4, "f8", "gaussian_cdf"),
        (1100, 3, 140, 3, "f4", "uniform"),
        (1, 2, 1, 2, "f4", "normal"),
        (1024, 1, 20, 1, "f8", "normal"),
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


def test_a_solve_goes_on_where_it_ended(emulator):
    rng = np.random.default_rng(3)
    y, nu = rng.normal(size=(40, 3)).astype("f4"), np.full(40, 1 / 40, "f4")
    settings = {"batch": 30, "lr": 0.1, "seed": 2}
    want, want_chi2 = otcuda.heights_adam_solve(y, nu, iterations=5, **settings)
    state = fresh_state(40, "f4")
    chi2 = emulated_solve(emulator, y, nu, state, "normal", iterations=3, **settings)
    chi2 = [*chi2, *emulated_solve(emulator, y, nu, state, "normal", iterations=2, **settings)]
    assert_same_state(state, want)
    assert chi2 == want_chi2.tolist()


def test_a_solve_that_the_callback_stops_has_made_whole_steps(emulator):
    rng = np.random.default_rng(3)
    y, nu = rng.normal(size=(40, 3)).astype("f4"), np.full(40, 1 / 40, "f4")
    settings = {"batch": 30, "lr": 0.1, "seed": 2}
    state = fresh_state(40, "f4")
    with pytest.raises(EmulationError, match="stopped by the callback"):
        emulated_solve(emulator, y, nu, state, "normal", iterations=200, stop_after=2, **settings)
    assert 2 <= state.step < 200
    want, _ = otcuda.heights_adam_solve(y, nu, iterations=state.step, **settings)
    assert_same_state(state, want)

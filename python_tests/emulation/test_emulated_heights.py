# SPDX-License-Identifier: Apache-2.0
"""source_samples and the heights ops: emulated CUDA gives the bits of the CPU."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest
from emulation.calls import (
    SOURCES,
    assert_same_state,
    emulated_samples,
    emulated_solve,
    emulated_step,
)
from emulation.emulator import ROOT, EmulationError

import otcuda
from otcuda import _heights

CAPTURABLE = {  # runtime calls that a capturing stream allows: they neither wait nor allocate
    "cudaDeviceGetAttribute",
    "cudaFuncSetAttribute",
    "cudaGetDevice",
    "cudaGetErrorString",
    "cudaGetLastError",
    "cudaMemsetAsync",
    "cudaSetDevice",
}


def calls(text):
    """Names of runtime calls in C++."""
    return set(re.findall(r"\b(cu(?:da)?[A-Z]\w*)\s*\(", text))


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


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_calls_that_count_on_the_device_go_on_by_themselves(dtype, emulator):
    """As replays of a graph: the host gives the same numbers each time. Step 256 centres."""
    rng = np.random.default_rng(7)
    y, nu = rng.normal(size=(1030, 2)).astype(dtype), np.full(1030, 1 / 1030, dtype)
    start = rng.normal(size=1030).astype(dtype) + 5
    states = [otcuda.HeightsState(start.copy(), 0 * nu, 0 * nu, 253) for _ in range(2)]
    states[1].step = np.array([253])
    settings = {"batch": 60, "lr": 0.1, "seed": 1}
    _, want = otcuda.heights_adam_solve(y, nu, "normal", state=states[0], iterations=6, **settings)
    given = {"iterations": 2, **settings}
    chi2 = [emulated_solve(emulator, y, nu, states[1], "normal", **given) for _ in range(3)]
    assert_same_state(states[1], states[0])
    assert np.concatenate(chi2).tobytes() == want.tobytes()


def test_what_launchers_call_can_be_captured():
    """No runtime call of csrc/cuda waits or allocates; cuda_emu.h knows no others either."""
    called = {name for path in (ROOT / "csrc/cuda").glob("*") for name in calls(path.read_text())}
    assert called - CAPTURABLE == set()
    assert {"cudaMemsetAsync", "cudaGetLastError"} <= called
    assert calls("check_cuda(cudaStreamSynchronize(s), 1); cudaMalloc (&p, 3);") == {
        "cudaStreamSynchronize",
        "cudaMalloc",
    }


def test_a_call_that_counts_on_the_device_asks_it_nothing(monkeypatch):
    """No op of torch that waits: no number fetched, nothing copied to host memory."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    met = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            met.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    given = []
    fake = types.SimpleNamespace(
        heights_adam_solve=lambda *a, **_: given.append(a),
        heights_adam_solve_workspace=lambda *_: 64,
    )
    monkeypatch.setattr(_heights, "native", fake)
    monkeypatch.setattr(_heights, "on_cuda", lambda _, array: isinstance(array, torch.Tensor))
    monkeypatch.setattr(_heights, "cuda_stream", lambda *_: (7,))
    y, nu = torch.randn(5, 2), torch.full((5,), 0.2)
    cells = [torch.zeros(5) for _ in range(3)]
    settings = {"iterations": 3, "batch": 8}
    with Watch():
        state = otcuda.HeightsState(*cells, torch.zeros(1, dtype=torch.int64))
        met.clear()
        _, chi2 = otcuda.heights_adam_solve(y, nu, state=state, **settings)
    assert isinstance(chi2, torch.Tensor)
    assert set(met) <= {"empty", "detach", "view", "alias"}
    with Watch():
        met.clear()
        otcuda.heights_adam_solve(y, nu, state=otcuda.HeightsState(*cells, 0), **settings)
    assert "_local_scalar_dense" in met  # a call that counts on the host looks at y
    assert [len(a) for a in given] == [10, 10]
    wrong = otcuda.HeightsState(*cells, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(otcuda.ArgumentError, match=r"int64 \[2\], expected int64 \[1\]"):
        otcuda.heights_adam_solve(y, nu, state=wrong, **settings)


def test_a_step_on_the_device_needs_y_there():
    torch = pytest.importorskip("torch")
    state = otcuda.HeightsState(*(torch.zeros(5) for _ in range(3)), torch.zeros(1).long())
    with pytest.raises(otcuda.ArgumentError, match="is a tensor only for y on a CUDA device"):
        otcuda.heights_adam_solve(torch.randn(5, 2), state=state, iterations=1, batch=8)

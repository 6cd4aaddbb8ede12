# SPDX-License-Identifier: Apache-2.0
"""A CUDA device gives the bits of the CPU; power_argmax beside its emulated tests."""

from __future__ import annotations

import argmax_cases
import mass_cases
import numpy as np
import pytest
from coding.cases import MESSAGES
from emulation import topk_cases
from emulation.range_cases import ragged
from emulation.rans_cases import CALM, GAUSS, drawn
from emulation.screen_cases import problems

import otcuda
from otcuda import _screen
from otcuda._ops import native
from otcuda.coding import (
    decode,
    decode_blocks,
    decode_messages,
    encode_batch,
    encode_blocks,
    encode_long,
    encode_messages,
)

pytestmark = pytest.mark.cuda


@pytest.fixture
def to_device():
    """NumPy array -> tensor on the device."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if not otcuda.backend_info()["cuda"]:
        pytest.skip("this build has no CUDA kernels")
    return lambda array: torch.from_numpy(array.copy()).cuda()


def assert_same_arrays(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.cpu().numpy().tobytes() == b.tobytes()


@pytest.mark.parametrize("name", mass_cases.CASES)
def test_device_gives_the_cell_mass_of_the_cpu(name, to_device):
    index, N, weights = mass_cases.case(name)
    otcuda.backend_info(reset=True)
    on_device = None if weights is None else to_device(weights)
    got = otcuda.cell_mass(to_device(index), N, on_device)
    assert list(otcuda.backend_info()["paths"]) == ["cell_mass/cuda"]
    assert_same_arrays([got], [otcuda.cell_mass(index, N, weights)])


def test_device_gives_the_errors_of_the_cpu(to_device):
    index = np.array([0, 4])
    with pytest.raises(otcuda.ArgumentError, match=r"index\[1\] is 4, expected -1 .* N - 1 = 3"):
        otcuda.cell_mass(to_device(index), 4)
    with pytest.raises(otcuda.ArgumentError, match=r"weights\[0\] is not finite"):
        otcuda.cell_mass(to_device(index[:1]), 4, to_device(np.array([np.inf])))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("source", ["normal", "uniform", "gaussian_cdf"])
def test_device_gives_the_samples_of_the_cpu(source, dtype, to_device):
    want = np.empty((1000, 7), dtype)
    got = to_device(want)
    for out in (want, got):
        otcuda.source_samples(out, source, seed=3, stream=4, offset=2**61)
    assert_same_arrays([got], [want])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_device_gives_the_step_of_the_cpu(dtype, to_device):
    want = list(np.abs(np.random.default_rng(0).normal(size=(5, 3000))).astype(dtype))
    got = [to_device(a) for a in want]
    for arrays in (want, got):
        otcuda.heights_adam_step(*arrays, 7, lr=0.03)
    assert_same_arrays(got, want)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("N", "D", "batch"), [(37, 5, 50), (3000, 9, 5000)])
def test_device_gives_the_solve_of_the_cpu(N, D, batch, dtype, to_device):
    y = np.random.default_rng(N).normal(size=(N, D)).astype(dtype)
    settings = {"iterations": 300, "batch": batch, "lr": 0.05, "seed": 6}
    want, want_chi2 = otcuda.heights_adam_solve(y, **settings)
    got, chi2 = otcuda.heights_adam_solve(to_device(y), **settings)
    assert got.step == want.step
    assert_same_arrays([got.h, got.m, got.v], [want.h, want.m, want.v])
    assert chi2.tobytes() == want_chi2.tobytes()


def test_device_solve_can_be_captured_in_a_graph(to_device):
    """Each replay makes the next 20 steps, past the centring one."""
    torch = pytest.importorskip("torch")
    y = np.random.default_rng(1).normal(size=(300, 5)).astype("f4")
    nu, zero = np.full(300, 1 / 300, "f4"), np.zeros(300, "f4")
    settings = {"batch": 500, "lr": 0.05, "seed": 6}
    want, want_chi2 = otcuda.heights_adam_solve(y, nu, iterations=280, **settings)
    step = to_device(np.zeros(1, np.int64))
    state = otcuda.HeightsState(*(to_device(zero) for _ in range(3)), step)
    given = (to_device(y), to_device(nu))
    side = torch.cuda.Stream()  # the first call is made outside of the graph
    with torch.cuda.stream(side):
        _, first = otcuda.heights_adam_solve(*given, state=state, iterations=20, **settings)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _, chi2 = otcuda.heights_adam_solve(*given, state=state, iterations=20, **settings)
    found = [first.cpu().numpy()]
    for _ in range(13):
        graph.replay()
        found.append(chi2.cpu().numpy())
    assert step.tolist() == [280]
    assert_same_arrays([state.h, state.m, state.v], [want.h, want.m, want.v])
    assert np.concatenate(found).tobytes() == want_chi2.tobytes()


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.name)
def test_device_gives_the_messages_of_the_cpu(case, to_device):
    tables, index = case.tables(), case.index()
    symbols = case.symbols(tables).astype(np.int64)
    want = encode_long(symbols, tables, index, 64)
    otcuda.backend_info(reset=True)
    assert encode_long(to_device(symbols), tables, to_device(index), 64) == want
    assert list(otcuda.backend_info()["paths"]) == ["rans32/cuda"]
    assert_same_arrays([decode(want, tables, to_device(index))], [symbols])


def test_device_messages_can_be_captured_in_a_graph(to_device):
    torch = pytest.importorskip("torch")
    symbols, index = (to_device(a) for a in drawn(1, 50_000, GAUSS))
    encode_blocks(symbols, GAUSS, index)  # the tables are there now
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        message = encode_blocks(symbols, GAUSS, index, check=False)
        back = decode_blocks(message, GAUSS, index, check=False)
    symbols[7] += 1
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(back, symbols)
    assert message.faults.tolist() == CALM


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.name)
def test_device_gives_the_batches_of_the_cpu(case, to_device):
    tables, index = case.tables(), case.index()
    symbols, ends = case.symbols(tables).astype(np.int64), ragged(case.length, 9)
    want = encode_batch(np.split(symbols, ends[:-1]), tables, np.split(index, ends[:-1]))
    otcuda.backend_info(reset=True)
    messages = encode_messages(to_device(symbols), tables, to_device(ends), to_device(index))
    assert messages.host() == want
    assert list(otcuda.backend_info()["paths"]) == ["range64/cuda"]
    assert_same_arrays([decode_messages(messages, tables, to_device(index))], [symbols])


def test_device_batches_can_be_captured_in_a_graph(to_device):
    torch = pytest.importorskip("torch")
    symbols, index = (to_device(a) for a in drawn(1, 50_000, GAUSS))
    ends = to_device(ragged(50_000, 700))
    encode_messages(symbols, GAUSS, ends, index)  # the tables are there now
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        messages = encode_messages(symbols, GAUSS, ends, index, check=False)
        back = decode_messages(messages, GAUSS, index, check=False)
    symbols[7] += 1
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(back, symbols)
    assert messages.faults.tolist() == CALM


@pytest.mark.parametrize("number", range(len(list(topk_cases.problems()))))
def test_device_gives_the_lists_of_the_cpu(number, to_device):
    x, y, h, k = list(topk_cases.problems())[number]
    on_device = [to_device(a) for a in (x, y, h)]
    otcuda.backend_info(reset=True)
    lists = otcuda.power_topk(*on_device, k)
    best = otcuda.power_argmax(*on_device, return_gap=True)
    assert list(otcuda.backend_info()["paths"]) == ["power_topk/cuda"]
    want = otcuda.power_topk(x, y, h, k), otcuda.power_argmax(x, y, h, return_gap=True)
    for got, expected in zip((lists, best), want, strict=True):
        topk_cases.assert_same_bits([a.cpu().numpy() for a in got], expected)


@pytest.mark.parametrize(("B", "N", "D", "k"), [(3000, 70_000, 20, 64), (5, 200_000, 3, 7)])
def test_device_gives_longer_lists_of_the_cpu(B, N, D, k, to_device):
    """Several chunks of samples, and targets shared out among blocks."""
    x, y, h = argmax_cases.base((B, N, D))
    got = otcuda.power_topk(*map(to_device, (x, y, h)), k)
    topk_cases.assert_same_bits([a.cpu().numpy() for a in got], otcuda.power_topk(x, y, h, k))


def test_device_lists_can_be_captured_in_a_graph(to_device):
    torch = pytest.importorskip("torch")
    x, y, h = map(to_device, argmax_cases.base((300, 5000, 9)))
    otcuda.power_topk(x, y, h, 3)  # the kernels are loaded now
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        lists = otcuda.power_topk(x, y, h, 3)
        best = otcuda.power_argmax(x, y, h, return_gap=True)
    x.neg_()
    graph.replay()
    torch.cuda.synchronize()
    assert_same_arrays(lists, otcuda.power_topk(*(a.cpu().numpy() for a in (x, y, h)), 3))
    assert_same_arrays(
        best, (a.cpu().numpy() for a in otcuda.power_argmax(x, y, h, return_gap=True))
    )


@pytest.mark.parametrize("kernel", ["power_argmax_screen", "power_argmax_wgmma"])
@pytest.mark.parametrize("k", range(len(list(problems()))))
def test_device_gives_the_screened_winners_of_the_cpu(k, kernel, to_device):
    problem = list(map(to_device, list(problems())[k]))
    if kernel == "power_argmax_wgmma" and not native.power_argmax_has_wgmma(
        problem[0].device.index
    ):
        pytest.skip("this device, or this build, has no wgmma")
    got = _screen.run(native, kernel, *problem)
    problem = [a.cpu().numpy() for a in problem]
    want = otcuda.power_argmax(*problem)
    assert (got[1].cpu().numpy() == want[1]).all()
    np.testing.assert_array_equal(got[0].cpu().numpy(), want[0])


@pytest.mark.parametrize("shape", [(300, 5000, 32), (1000, 9000, 64), (70, 3000, 128)], ids=str)
def test_device_gives_the_winners_of_the_plain_kernel_by_wgmma(shape, to_device):
    """Rings that turn over, several blocks; again and again, for timing differs."""
    torch = pytest.importorskip("torch")
    x, y, h = map(to_device, argmax_cases.base(shape))
    if not native.power_argmax_has_wgmma(x.device.index):
        pytest.skip("this device, or this build, has no wgmma")
    want = _screen.run(native, "power_argmax", x, y, h)
    otcuda.backend_info(reset=True)
    for _ in range(20):
        got = _screen.run(native, "power_argmax_wgmma", x, y, h)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert otcuda.backend_info()["paths"]["power_argmax/cuda_wgmma"]["items"] == 20 * len(x)


def test_device_trusts_its_tensor_cores(to_device):
    x, y, h = map(to_device, argmax_cases.base((1100, 9000, 64)))
    otcuda.backend_info(reset=True)
    got = otcuda.power_argmax(x, y, h)
    want = _screen.run(native, "power_argmax", x, y, h)
    assert_same_arrays(got, [a.cpu().numpy() for a in want])
    paths = otcuda.backend_info()["paths"]
    if native.power_argmax_has_wgmma(x.device.index):
        assert "power_argmax/cuda_wgmma" in paths
    elif paths.get("power_argmax/cuda_screen") is None:
        pytest.skip("this card has too little to win by the screen")

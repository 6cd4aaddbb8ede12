# SPDX-License-Identifier: Apache-2.0
"""power_topk and the gap: the kernels give the bits of the contract and of the CPU."""

from __future__ import annotations

import ctypes
import types

import argmax_cases
import exact
import numpy as np
import pytest
from emulation import topk_cases
from emulation.calls import emulated_gap, emulated_topk
from emulation.capsule import Capsule
from emulation.emulator import EmulationError, Scratch
from emulation.test_emulated_power_argmax import text_of_line

import otcuda
from otcuda import _ops, _power

torch = pytest.importorskip("torch")
SMALL = ["whole panels", "signed zeros", "not numbers", "dead behind nan", "infinite heights"]


def problem(B, N, D, dtype="f4"):
    return tuple(a.astype(dtype) for a in argmax_cases.base((B, N, D)))


def test_the_borders_that_mutations_move(emulator):
    for x, y, h, k in topk_cases.problems():
        topk_cases.check(emulator, x, y, h, k, processors=1)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", SMALL)
def test_hard_cases(name, dtype, emulator):
    x, y, h = argmax_cases.hard_case(name, dtype)
    x = x[:9]
    for k in (1, 2, 20):
        topk_cases.check(emulator, x, y, h, k)


@pytest.mark.parametrize("shape", argmax_cases.SHAPES[:4], ids=str)
def test_golden_cases_have_the_bits_of_the_cpu(shape, emulator):
    for case, (_, x, y, h) in enumerate(argmax_cases.cases([shape])):
        if case % 4 and shape[0] > 10:
            continue
        want = otcuda.power_topk(x, y, h, 5)
        topk_cases.assert_same_bits(emulated_topk(emulator, x, y, h, 5), want)
        want = otcuda.power_argmax(x, y, h, return_gap=True)
        topk_cases.assert_same_bits(emulated_gap(emulator, x, y, h), want)


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 63, 64])
def test_every_length_of_a_list(k, emulator):
    x, y, h = problem(4, 700, 3)
    topk_cases.check(emulator, x, y, h, k)
    topk_cases.check(emulator, *problem(2, 90, 3, "f8"), k)


@pytest.mark.parametrize(("seed", "preempt", "processors"), [(0, 0, 1), (2, 0, 7), (3, 60, 2)])
def test_order_of_threads_and_shares_change_no_bit(seed, preempt, processors, emulator):
    x, y, h = problem(20, 600, 5)
    y, h = y[np.arange(600) % 300], np.zeros_like(h)  # twins
    settings = {"seed": seed, "preempt": preempt, "processors": processors}
    topk_cases.check(emulator, x, y, h, 6, **settings)
    topk_cases.check(emulator, x[:3].astype("f8"), y.astype("f8"), h.astype("f8"), 2, **settings)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_less_workspace_means_smaller_chunks(dtype, emulator):
    x, y, h = problem(300, 70, 3, dtype)
    kind = int(dtype == "f8")
    whole = emulator.workspace("power_topk", kind, 300, 70, 3).array.nbytes
    least = emulator.workspace("power_topk", kind, 1, 70, 3).array.nbytes
    assert least < whole
    scratch = Scratch(least)
    got = emulated_topk(emulator, x, y, h, 2, scratch)
    topk_cases.assert_same_bits(got, exact.power_topk(x, y, h, 2))
    with pytest.raises(EmulationError, match=f"power_topk: workspace has {least - 8} bytes"):
        emulated_topk(emulator, x, y, h, 2, Scratch(least - 8))


def test_workspace_stays_bounded(emulator):
    def ask(*sizes):
        return count(*map(ctypes.c_int64, sizes))

    count = emulator.lib.emulated_power_topk_workspace
    count.restype = ctypes.c_int64

    assert ask(0, 1 << 20, 65_536, 8) - ask(0, 1 << 20, 128, 8) < 40 << 20
    assert ask(1, 1 << 20, 65_536, 8) < 33 << 20
    assert ask(0, 1 << 26, 128, 1024) < 300 << 20


def test_maxima_are_written_and_read_in_whole_sectors(emulator):
    x, y, h = problem(128, 512, 16)
    emulated_topk(emulator, x, y, h, 2, processors=1, traffic=True)
    lines = emulator.take_traffic()
    written = [line for line in lines if "*own = best_of_eight" in text_of_line(line.place)]
    read = [line for line in lines if "most[k] = group < groups" in text_of_line(line.place)]
    assert written
    assert read
    assert all(line.ratio == 1.0 for line in written), written
    shared = [line for line in lines if line.memory == "shared"]
    assert all(line.ratio == 1.0 for line in shared), shared


# --- the public ops, where torch's tensors would lie on a device ----------------------------------


class OnEmulator:
    """What of the native core the two ops call, on the emulator."""

    def __init__(self, emulator):
        self.emulator, self.calls = emulator, []

    def power_topk_workspace(self, *sizes):
        assert len(sizes) == 4
        return 64

    def power_topk(self, *given):
        if len(given) == 5:  # of arrays in host memory
            return _ops.native.power_topk(*given)
        *arrays, _, stream = given
        x, y, h, value, index = (torch.from_dlpack(Capsule(a)).numpy() for a in arrays)
        self.calls.append(("power_topk", stream))
        value[...], index[...] = emulated_topk(self.emulator, x, y, h, value.shape[1])
        return None

    def power_argmax_gap(self, *given):
        if len(given) == 6:
            return _ops.native.power_argmax_gap(*given)
        *arrays, _, stream = given
        x, y, h, *results = (torch.from_dlpack(Capsule(a)).numpy() for a in arrays)
        self.calls.append(("power_argmax_gap", stream))
        for to, result in zip(results, emulated_gap(self.emulator, x, y, h), strict=True):
            to[...] = result
        return None


@pytest.fixture
def device(monkeypatch, emulator):
    """Tensors in host memory count as lying on a device."""
    native = OnEmulator(emulator)
    monkeypatch.setattr(_power, "native", native)
    monkeypatch.setattr(_power, "on_cuda", lambda _, array: isinstance(array, torch.Tensor))
    monkeypatch.setattr(_power, "cuda_stream", lambda *_: (7,))
    return native


@pytest.mark.parametrize("groups", [(), (3,), (0,)])
def test_public_ops_go_to_the_device(groups, device, rng):
    x, y, h = (torch.randn(*groups, *shape, generator=rng) for shape in ((9, 4), (21, 4), (21,)))
    want = otcuda.power_topk(x.numpy(), y.numpy(), h.numpy(), 3)
    want_gap = otcuda.power_argmax(x.numpy(), y.numpy(), h.numpy(), return_gap=True)
    assert device.calls == []  # NumPy arrays stay on the CPU
    got = otcuda.power_topk(x, y, h, 3)
    topk_cases.assert_same_bits([a.numpy() for a in got], want)
    got = otcuda.power_argmax(x, y, h, return_gap=True)
    topk_cases.assert_same_bits([a.numpy() for a in got], want_gap)
    each = groups[0] if groups else 1
    assert device.calls == [("power_topk", 7)] * each + [("power_argmax_gap", 7)] * each


def test_out_and_gradients_on_the_device(device, rng):
    x, y, h = (torch.randn(*shape, generator=rng) for shape in ((9, 4), (21, 4), (21,)))
    out = torch.empty(9, 2), torch.empty(9, 2, dtype=torch.int64)
    found = otcuda.power_topk(x, y, h, 2, out=out)
    assert found[0] is out[0]
    topk_cases.assert_same_bits(
        [a.numpy() for a in out], exact.power_topk(x.numpy(), y.numpy(), h.numpy(), 2)
    )
    x.requires_grad_()
    *_, gap = otcuda.power_argmax(x, y, h, return_gap=True)
    gap.sum().backward()
    assert torch.equal(x.grad, y[out[1][:, 0]] - y[out[1][:, 1]])
    assert torch.equal(gap.detach(), out[0][:, 0] - out[0][:, 1])


def test_nothing_is_asked_of_the_device(device, rng):
    """Calls can be captured: no op that fetches a number."""
    from torch.utils._python_dispatch import TorchDispatchMode

    met = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            met.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    def no_kernel(*_):
        return None

    quiet = types.SimpleNamespace(
        power_topk=no_kernel, power_argmax_gap=no_kernel, power_topk_workspace=lambda *_: 64
    )
    _power.native = quiet  # the fixture puts the real one back
    x, y, h = torch.randn(2, 9, 4), torch.randn(2, 21, 4), torch.randn(2, 21)
    with Watch():
        _power._lists_on_cuda(x, y, h, 3)
        _power._lists_on_cuda(x, y, h, None)
    assert met <= {"empty", "empty_like", "unbind", "stack", "cat", "detach", "view", "alias"}
    met.clear()
    with Watch():  # by the dispatcher, as where a gradient is watched
        otcuda.power_argmax(x, y, h, return_gap=True)
    assert "power_topk" in met
    assert not met & {"_local_scalar_dense", "item", "nonzero", "is_nonzero"}

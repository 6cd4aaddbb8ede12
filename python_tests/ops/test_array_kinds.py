# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries go in through DLPack, and results come back as the same kind."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import otcuda


def problem(dtype="f4"):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 3)).astype(dtype), rng.standard_normal((20, 3)).astype(dtype)
    return x, y, (-np.square(y).sum(1) / 2).astype(dtype)


def calls(x, y, h):
    """Results of every op that takes arrays of x's kind."""
    value, index, gap, mass = otcuda.power_argmax(x, y, h, return_gap=True, return_mass=True)
    return value, index, gap, mass, *otcuda.power_topk(x, y, h, 3), otcuda.cell_mass(index, 20)


def test_jax_arrays_come_back():
    jax = pytest.importorskip("jax")
    wanted = calls(*problem())
    for a, b in zip(calls(*map(jax.numpy.asarray, problem())), wanted, strict=True):
        assert isinstance(a, jax.Array)
        np.testing.assert_array_equal(a, b)
    x, y, h = map(jax.numpy.asarray, problem())
    found = otcuda.PowerIndex(y, h).topk(x, 3)
    assert isinstance(found[1], jax.Array)
    np.testing.assert_array_equal(found[1], wanted[5])


def test_jax_bfloat16_is_widened():
    jax = pytest.importorskip("jax")
    halves = [jax.numpy.asarray(a, jax.numpy.bfloat16) for a in problem()]
    value, index = otcuda.power_argmax(*halves)
    wanted = otcuda.power_argmax(*(np.asarray(a).astype("f4") for a in halves))
    assert value.dtype == jax.numpy.float32
    np.testing.assert_array_equal(value, wanted[0])
    np.testing.assert_array_equal(index, wanted[1])


class Foreign:
    """Stands in for cupy.ndarray; `device` is DLPack's number, whatever the memory really is."""

    __module__ = "cupy_stand_in._core"
    device = 1

    def __init__(self, array):
        self.array = np.asarray(array)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return (self.device, 0)


class OnGpu(Foreign):
    __module__ = "cupy_stand_in._core"
    device = 2


@pytest.fixture
def cupy(monkeypatch):
    module = types.ModuleType("cupy_stand_in")
    module.from_dlpack = Foreign
    monkeypatch.setitem(sys.modules, "cupy_stand_in", module)
    return module


def test_arrays_without_a_namespace_come_back_by_their_package(cupy):
    for a, b in zip(calls(*map(Foreign, problem())), calls(*problem()), strict=True):
        assert isinstance(a, Foreign)
        np.testing.assert_array_equal(a.array, b)


def test_arrays_of_a_cuda_device_go_through_torch(cupy, monkeypatch):
    torch = pytest.importorskip("torch")
    seen = []

    def from_dlpack(array):
        seen.append(array)
        return torch.from_numpy(array.array.copy())  # where there is a card, its own memory

    monkeypatch.setattr(torch, "from_dlpack", from_dlpack)
    given = [OnGpu(a) for a in problem()]
    got = otcuda.power_argmax(*given, return_mass=True)
    assert seen == given
    for a, b in zip(got, otcuda.power_argmax(*problem(), return_mass=True), strict=True):
        assert isinstance(a, Foreign)
        np.testing.assert_array_equal(a.array, b)


def test_what_is_missing_for_arrays_of_a_cuda_device_is_said():
    torch = pytest.importorskip("torch")
    x, y, h = problem()
    if not torch.cuda.is_available():
        with pytest.raises(otcuda.DeviceError, match="torch cannot reach the device"):
            otcuda.power_argmax(OnGpu(x), OnGpu(y), OnGpu(h))
    with pytest.raises(otcuda.DeviceError, match="y lies in host memory"):
        otcuda.power_argmax(OnGpu(x), y, h)
    with pytest.raises(otcuda.DeviceError, match="y lies on a CUDA device"):
        otcuda.PowerIndex(OnGpu(y))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_cell_mass_takes_what_argmax_gives(dtype):
    index, weights = np.array([1, -1, 1], dtype), np.array([0.5, 1, 0.25], np.float16)
    assert otcuda.cell_mass(index, 3).tolist() == [0, 2, 0]
    mass = otcuda.cell_mass(index, 3, weights)
    assert mass.dtype == np.float32
    assert mass.tolist() == [0, 0.75, 0]

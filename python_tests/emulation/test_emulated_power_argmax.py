# SPDX-License-Identifier: Apache-2.0
"""power_argmax: every backend gives the bits of the contract, the emulated one breaking no rule."""

from __future__ import annotations

from pathlib import Path

import argmax_cases
import exact
import numpy as np
import pytest
from emulation.calls import assert_same_bits, emulated_power_argmax
from emulation.emulator import ROOT, EmulationError, Scratch

GOLDEN = Path(__file__).parents[1] / "golden" / "power_argmax_v1.npz"
SMALL = argmax_cases.SHAPES[:4]


def torch_power_argmax(device):
    torch, otcuda = pytest.importorskip("torch"), pytest.importorskip("otcuda")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return lambda *arrays: tuple(
        result.cpu().numpy()
        for result in otcuda.power_argmax(*(torch.from_numpy(a).to(device) for a in arrays))
    )


@pytest.fixture(params=["emulated", "cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def power_argmax(request):
    """(x, y, h) -> (value, index) of each backend; one processor, so that blocks see panels."""
    if request.param != "emulated":
        return torch_power_argmax(request.param)
    emulator = request.getfixturevalue("emulator")
    return lambda *arrays: emulated_power_argmax(emulator, *arrays, processors=1)


def golden_results(shape):
    """(case, value, index) of the golden file, for the cases of one shape."""
    golden, shapes = np.load(GOLDEN), argmax_cases.SHAPES
    kinds = len(argmax_cases.HEIGHTS) * len(argmax_cases.SPECIALS)
    begin = kinds * sum(B for B, _, _ in shapes[: shapes.index(shape)])
    bits, indices = golden["bits"], golden["index"]
    for case in argmax_cases.cases([shape]):
        end = begin + shape[0]
        yield case, bits[begin:end].view("f4"), indices[begin:end]
        begin = end


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_reproduces_the_golden_file(shape, emulator):
    for (_, x, y, h), value, index in golden_results(shape):
        assert_same_bits(emulated_power_argmax(emulator, x, y, h), (value, index))


@pytest.mark.slow
@pytest.mark.parametrize("shape", argmax_cases.SHAPES[4:], ids=str)
def test_reproduces_the_golden_file_at_larger_shapes(shape, emulator):
    for k, ((_, x, y, h), value, index) in enumerate(golden_results(shape)):
        if k % 7 == 0:  # each special and each height once or more
            got = emulated_power_argmax(emulator, x, y, h, processors=1)
            assert_same_bits(got, (value, index))


@pytest.mark.cuda
def test_the_device_reproduces_the_golden_file():
    power_argmax = torch_power_argmax("cuda")
    for shape in argmax_cases.SHAPES:
        for (_, x, y, h), value, index in golden_results(shape):
            assert_same_bits(power_argmax(x, y, h), (value, index))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", argmax_cases.HARD)
def test_hard_cases(name, dtype, power_argmax):
    if dtype == "f8" and np.prod(argmax_cases.HARD[name][0]) > 500_000:
        pytest.skip("the float64 reference is a Python loop")
    x, y, h = argmax_cases.hard_case(name, dtype)
    assert_same_bits(power_argmax(x, y, h), exact.power_argmax(x, y, h))


def test_the_cases_hold_what_their_names_promise():
    value, _ = exact.power_argmax(*argmax_cases.hard_case("signed zeros"))
    assert (np.signbit(value) & (value == 0)).any()
    assert (exact.power_argmax(*argmax_cases.hard_case("not numbers"))[1] == -1).any()
    assert (exact.power_argmax(*argmax_cases.hard_case("dead behind nan"))[1] >= 256).any()
    value, _ = exact.power_argmax(*argmax_cases.hard_case("subnormal scores"))
    assert (np.abs(value) < np.finfo(np.float32).tiny).any()
    x, y, h = argmax_cases.hard_case("many duplicates")
    _, index = exact.power_argmax(x, y, h)
    assert ((y == y[index[0]]).all(1) & (h == h[index[0]])).sum() >= 4


@pytest.mark.parametrize(("seed", "preempt"), [(0, 0), (2, 0), (3, 50)])
@pytest.mark.parametrize("processors", [1, 100])
def test_order_of_threads_and_shares_change_no_bit(seed, preempt, processors, emulator):
    x, y, h = argmax_cases.hard_case("many duplicates")
    settings = {"seed": seed, "preempt": preempt, "processors": processors}
    got = emulated_power_argmax(emulator, x[:140], y, h, **settings)
    assert_same_bits(got, exact.power_argmax(x[:140], y, h))


def test_a_small_workspace_means_chunks_and_the_same_bits(emulator):
    x, y, noise = argmax_cases.base((300, 140, 9))
    whole = emulator.workspace("power_argmax", 0, 300, 140, 9).array.nbytes
    panel = 128 * (9 * 4 + 8)
    got = emulated_power_argmax(emulator, x, y, noise, Scratch(whole - 2 * panel))
    assert_same_bits(got, exact.power_argmax(x, y, noise))
    with pytest.raises(EmulationError, match=r"workspace has \d+ bytes, expected at least \d+"):
        emulated_power_argmax(emulator, x, y, noise, Scratch(whole - 3 * panel))


def test_no_sample_is_no_launch(emulator):
    x, y, h = np.zeros((0, 3), "f4"), np.zeros((2, 3), "f4"), np.zeros(2, "f4")
    value, index = emulated_power_argmax(emulator, x, y, h)
    assert len(value) == len(index) == 0


def text_of_line(place):
    """What stands at file:line of csrc/cuda."""
    name, line = place.split(":")
    return (ROOT / "csrc/cuda" / name).read_text().splitlines()[int(line) - 1]


def test_the_loop_meets_no_bank_conflict_and_copies_whole_sectors(emulator):
    x, y, noise = argmax_cases.base((256, 512, 32))
    emulated_power_argmax(emulator, x, y, noise, processors=1, traffic=True)
    lines = emulator.take_traffic()
    shared = [line for line in lines if line.memory == "shared"]
    assert len(shared) >= 4
    assert all(line.ratio == 1.0 for line in shared), shared
    copies = [line for line in lines if "cp_async16" in text_of_line(line.place)]
    assert {line.memory for line in copies} == {"shared", "global"}
    assert all(line.ratio == 1.0 for line in copies), copies

# SPDX-License-Identifier: Apache-2.0
"""Bars on the machine code: no spills, the instructions we count on, the share of the hot loop."""

from __future__ import annotations

import re

import pytest
from emulation import nvcc, sass_report
from emulation.emulator import OPS

FAST = ("power_argmax", "sm_90a")
CASES = [
    pytest.param(op, arch, marks=() if (op, arch) == FAST else pytest.mark.slow)
    for arch in nvcc.ARCHITECTURES
    for op in OPS
]


@pytest.fixture(scope="module")
def cache(nvcc_cache):
    if not sass_report.nvdisasm():
        pytest.skip("nvdisasm is not on PATH; pip install nvidia-cuda-nvdisasm")
    return nvcc_cache


def test_architectures_are_those_of_the_build():
    text = (nvcc.ROOT / "cmake" / "FindNvcc.cmake").read_text()
    built = re.findall(r"\b(\d+a?)-real", text)
    assert [f"sm_{number}" for number in built] == list(nvcc.ARCHITECTURES)
    assert set(sass_report.CARDS) == set(nvcc.ARCHITECTURES)


@pytest.mark.parametrize(("op", "arch"), CASES)
def test_bars_hold(op, arch, cache):
    kernels = sass_report.kernels(op, arch, cache)
    assert kernels
    assert [fault for kernel in kernels for fault in sass_report.faults(kernel)] == []


@pytest.mark.slow
def test_every_bar_is_about_a_kernel_that_exists(cache):
    names = {k.name for op in OPS for k in sass_report.kernels(op, FAST[1], cache)}
    assert set(sass_report.BARS) <= names


def test_names_are_found_whatever_the_hash_of_the_file():
    """A hash of the path stands in an unnamed namespace; its 38 here would fit a longer name."""
    space = "_ZN6otcuda4cuda46_GLOBAL__N__e35a5216_13_power_topk_cu_38ec1c22"
    entry = f"{space}30power_topk_plain_maxima_kernelEPKdS3_S3_llilPd"
    assert sass_report.short_name(entry) == "power_topk_plain_maxima_kernel"
    entry = f"{space}24power_topk_select_kernelIdEEvNSt11conditionalIL_ZSt9is_same_vENS1_EEE4typeE"
    assert sass_report.short_name(entry) == "power_topk_select_kernel<double>"


@pytest.mark.parametrize("turns", [(32, 6), (64, 6), (128, 4)], ids=str)
def test_warpgroups_pay_little_for_a_maximum(turns, cache):
    """Of 32 sums a lane: 32 maxima, 8 loads of heights and 16 moves to begin with."""
    width, stages = turns
    found = sass_report.kernels("power_argmax_wgmma", FAST[1], cache)
    loop = next(k.loop for k in found if f"<{width}>" in k.name)
    sums = 32 * stages  # a turn of the ring is unrolled
    assert loop.instructions["HGMMA"] == stages * width // 16
    assert loop.instructions["FMNMX"] == sums
    epilogue = ("FMNMX", "LDS", "MOV", "IMAD", "SHFL", "SEL", "FSEL")
    assert sum(loop.instructions[op] for op in epilogue) <= 2.25 * sums
    assert loop.bound == ("tensor" if width >= 64 else "issue")


def test_bars_can_be_missed(cache):
    """A kernel that spills, lacks its opcodes or wastes its issue slots is named."""
    tile = next(k for k in sass_report.kernels(*FAST, cache) if "tile" in k.name)
    assert tile.loop.instructions["FFMA"] == 1024  # 16 dimensions of 8 x 8 sums
    tile.resources.spills, tile.resources.registers = 8, 160
    tile.opcodes.discard("LDGSTS")
    tile.loop.cycles["issue"] *= 2
    missed = " ".join(sass_report.faults(tile))
    screen = next(
        k for k in sass_report.kernels("power_argmax_screen", FAST[1], cache) if "<64>" in k.name
    )
    assert screen.loop.instructions["HMMA"] == 64  # 32 samples, 64 targets, 64 dimensions
    assert screen.loop.instructions["FMNMX"] <= 72  # 64 sums a thread and the shuffles
    screen.loop.cycles["issue"] = 295
    assert "hot loop of over 294 instructions" in " ".join(sass_report.faults(screen))
    for words in ("8 bytes spilled", "no LDGSTS", "share of the bound", "1 blocks"):
        assert words in missed

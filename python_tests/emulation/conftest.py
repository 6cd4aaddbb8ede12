# SPDX-License-Identifier: Apache-2.0
"""The emulator, built once and kept in pytest's cache folder until a source changes."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest
from emulation import emulator as emu
from emulation import nvcc


@pytest.fixture(scope="session")
def emulation_cache(request, tmp_path_factory) -> Path:
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("otcuda-emulation") if cache else tmp_path_factory.mktemp("emulation")


@pytest.fixture(scope="session")
def emulator(emulation_cache):
    """csrc/cuda as g++ sees it; every access is judged."""
    if platform.machine() != "x86_64":
        pytest.skip("the emulator switches stacks in x86-64 assembly")
    for tool in (emu.compiler(), shutil.which("addr2line")):
        if not tool:
            pytest.skip("the emulator needs g++ and addr2line")
    return emu.Emulator(emu.build(emulation_cache))


@pytest.fixture(scope="session")
def nvcc_cache(emulation_cache) -> Path:
    if not nvcc.compiler():
        pytest.skip("nvcc was not found by CUDACXX, CUDA_HOME, PATH or /usr/local/cuda")
    return emulation_cache

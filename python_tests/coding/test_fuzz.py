# SPDX-License-Identifier: Apache-2.0
"""The mutation harnesses tools/fuzz/*.cpp under sanitizers."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "csrc/common/alloc.cpp",
    "csrc/common/check.cpp",
    "csrc/cpu/tables.cpp",
    "csrc/cpu/range64.cpp",
]
RANS_SOURCES = [
    *(f"csrc/common/{name}.cpp" for name in ("alloc", "backend_info", "check", "simd", "threads")),
    *(f"csrc/cpu/{name}.cpp" for name in ("tables", "rans32", "rans32_portable")),
]
LEVEL_SOURCES = {
    "csrc/cpu/rans32_avx2.cpp": ["-mavx2", "-mfma"],
    "csrc/cpu/rans32_avx512.cpp": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
SANITIZE = ["-O2", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree"),
]


def build(folder: Path, name: str, sources: list[str], levels: dict[str, list[str]]) -> Path:
    program, x86 = folder / f"fuzz_{name}", platform.machine() in ("x86_64", "AMD64")
    flags = ["-std=c++17", *SANITIZE, f"-DOTCUDA_X86_LEVELS={int(x86)}", "-Icsrc", "-pthread"]
    objects = []
    for source, extra in levels.items() if x86 else ():
        objects.append(folder / f"{Path(source).stem}.o")
        command = [COMPILER, *flags, *extra, "-c", source, "-o", objects[-1]]
        subprocess.run(command, cwd=ROOT, check=True)
    command = [COMPILER, *flags, *sources, f"tools/fuzz/{name}.cpp", *objects, "-o", program]
    subprocess.run(command, cwd=ROOT, check=True)
    return program


def test_mutations_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    program = build(tmp_path, "range64", SOURCES, {})
    for seed in ("1", "2"):
        run = subprocess.run([program, "1500", seed], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        found = re.match(r"1500 cases, (\d+) tables refused, nothing found", run.stdout)
        assert 50 < int(found[1]) < 600, "most tables are good, some are not"


def test_mutated_blocks_under_sanitizers(tmp_path):
    program = build(tmp_path, "rans32", RANS_SOURCES, LEVEL_SOURCES)
    for seed in ("1", "2"):
        run = subprocess.run([program, "1200", seed], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        found = re.match(r"1200 cases, (\d+) noticed, (\d+) missed", run.stdout)
        assert int(found[1]) > 5000, "most damage is seen"
        assert found[2] == "0", "wrong symbols were taken for good"

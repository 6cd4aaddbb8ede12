# SPDX-License-Identifier: Apache-2.0
"""The mutation harness tools/fuzz/range64.cpp under sanitizers."""

from __future__ import annotations

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
COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree"),
]


def build(folder: Path, flags: list[str]) -> Path:
    program = folder / "fuzz_range64"
    sources = [*SOURCES, "tools/fuzz/range64.cpp"]
    command = [COMPILER, "-std=c++17", *flags, "-Icsrc", *sources, "-o", program]
    subprocess.run(command, cwd=ROOT, check=True)
    return program


def test_mutations_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    sanitize = ["-O2", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = build(tmp_path, sanitize)
    for seed in ("1", "2"):
        run = subprocess.run([program, "1500", seed], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        found = re.match(r"1500 cases, (\d+) tables refused, nothing found", run.stdout)
        assert 50 < int(found[1]) < 600, "most tables are good, some are not"

# SPDX-License-Identifier: Apache-2.0
"""benchmarks/gpu.sh without a card: what it asks for, how it goes on, what it ends with."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from emulation.emulator import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PYTHON = """#!/bin/bash
if [[ $1 == - ]]; then  # a small program of the script's
  if grep -q metadata; then echo "$SANITIZER"; else exit ${NO_TORCH:-0}; fi
else
  echo "$*" >> "$CALLS"
  [[ " $* " != *" $FAILS "* ]]
fi
"""

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


@pytest.fixture
def gpu(tmp_path):
    """Runs the script with tools that only note how they were called."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    for name in ("nvidia-smi", "nvcc", "compute-sanitizer"):
        (tools / name).write_text("#!/bin/bash\n")
    (tools / "python").write_text(PYTHON)
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def run(*parts, without=(), **more):
        calls.write_text("")
        for name in without:
            (tools / name).unlink()
        wanted = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "CUDA_HOME": str(tmp_path),
            "PYTHON": str(tools / "python"),
            "GPU_STATE": str(tmp_path / "state"),
            "CALLS": str(calls),
        }
        environment = {k: v for k, v in os.environ.items() if k != "CUDACXX"} | wanted | more
        command = ["bash", str(SCRIPT), *parts]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()

    return run


def test_a_machine_without_a_card_is_told_what_is_missing(gpu):
    code, said, called = gpu(without=["nvidia-smi", "nvcc"], NO_TORCH="1")
    assert code == 2
    for words in ("nvidia-smi is not on PATH", "nvcc 12.8 or later", "torch that sees a CUDA"):
        assert words in said
    assert [line for line in called if "pytest" not in line] == []


def test_all_parts_run_once_and_a_second_run_goes_on(gpu):
    code, said, called = gpu()
    assert code == 0, said
    assert "-m pytest -m cuda -ra" in called
    ran = [line.split()[-1] for line in called if "gpu.py" in line]
    assert ran == ["argmax", "topk", "mass", "solve", "rans32", "range64"]
    code, said, called = gpu()
    assert (code, said.count("done before")) == (0, 13)
    code, _, called = gpu("solve")  # asked for by name, it runs again
    assert (code, "benchmarks/gpu.py solve" in called) == (0, True)


def test_a_part_that_fails_does_not_stop_the_others(gpu):
    code, said, called = gpu(FAILS="mass")
    assert code == 1
    assert "=== mass FAILED" in said
    assert "benchmarks/gpu.py range64" in called
    code, said, _ = gpu()
    assert (code, said.count("done before")) == (0, 12)


def test_a_part_without_its_tool_is_left_out_and_not_done(gpu):
    code, said, _ = gpu(without=["compute-sanitizer"], SANITIZER="")
    assert code == 3
    assert said.count("LEFT OUT") == 4
    assert "pip install nvidia-cuda-sanitizer-api" in said
    code, said, _ = gpu(SANITIZER="/bin/true")
    assert (code, said.count("done before")) == (0, 9)


def test_an_unknown_part_is_named(gpu):
    code, said, called = gpu("argmax", "everything")
    assert (code, called) == (2, [])
    assert "no part everything; there are doctor build" in said

# SPDX-License-Identifier: Apache-2.0
"""The examples at small sizes: each runs, draws its picture, and shows what it says it shows."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Runs an example with arguments and gives what its main returns."""
    import torch

    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        path = tmp_path / "picture.png"
        found = module.main([*map(str, arguments), "--output", str(path)])
        with Image.open(path) as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 3  # something is drawn
        return found

    yield run
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_balanced_assignment_fills_the_centres(example):
    found = example("balanced_assignment", "--points", 900)
    assert found["balanced"]["over"] < 1.05 < 2 < found["nearest"]["over"]
    assert found["balanced"]["cost"] > found["nearest"]["cost"]  # what balance costs


@pytest.mark.slow
def test_balanced_codebook_has_no_dead_codes(example):
    found = example("balanced_codebook", "--points", 1200, "--codes", 48)
    plain, balanced = found["Lloyd"], found["balanced, then Lloyd"]
    assert balanced["dead"] <= 2 < 16 < plain["dead"]  # plain Lloyd at the end may lose one
    assert balanced["error"] < 0.5 * plain["error"]


@pytest.mark.slow
def test_stippling_spreads_the_dots(example):
    before, after = example("stippling", "--dots", 600, "--rounds", 6)["unevenness"]
    assert after < 0.25 < 0.4 < before


@pytest.mark.slow
@pytest.mark.parametrize("data", ["moons", "digits"])
def test_coupled_flows_are_straighter_and_need_fewer_steps(example, data):
    if data == "digits":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    found = example("flow_matching", "--data", data, "--points", 800, "--steps", 400)
    plain, coupled = found["independent"], found["coupled"]
    assert coupled["bending"] < 0.6 * plain["bending"]
    assert coupled["energy_distance"][2] < 0.5 * plain["energy_distance"][2]


@pytest.mark.slow
def test_distributed_runs_by_torchrun(tmp_path):
    pytest.importorskip("torch.distributed")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    size = ["--targets", "600", "--dimension", "4", "--chi2", "0.3"]
    out = tmp_path / "heights.safetensors"
    done = subprocess.run(
        [*command, EXAMPLES / "distributed.py", *size, "--output", out],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 processes: chi2")
    from otcuda.transport import SemiDiscreteOT

    assert SemiDiscreteOT.load(out).chi2(30_000).value < 0.3
    assert [path.name for path in tmp_path.iterdir()] == [out.name]

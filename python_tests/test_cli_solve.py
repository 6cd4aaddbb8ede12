# SPDX-License-Identifier: Apache-2.0
"""solve on the command line: the file it writes, what it prints, what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import run
from json_schema import violations
from problems import clusters

from otcuda import batch
from otcuda.cli.talk import FAILED, USAGE
from otcuda.transport import SemiDiscreteOT

SCHEMA = json.loads((Path(batch.__file__).parent / "data" / "cli.schema.json").read_text())


@pytest.fixture
def targets(tmp_path):
    np.save(tmp_path / "y.npy", clusters(300, 3))
    return tmp_path / "y.npy"


def test_solves_writes_and_says_so(targets, tmp_path):
    out = tmp_path / "heights.safetensors"
    result = run("solve", targets, "-o", out, "--chi2", "0.1", "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert violations(record, SCHEMA["$defs"]["solve"], SCHEMA) == []
    assert record["converged"]
    ot = SemiDiscreteOT.load(out)
    assert ot.chi2(50_000).value < 0.1
    fresh = SemiDiscreteOT(clusters(300, 3))
    fresh.fit(chi2=0.1)
    np.testing.assert_array_equal(ot.heights, fresh.heights)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["heights.safetensors", "y.npy"]
    assert run("solve", targets, "-o", out).code == FAILED
    assert run("solve", targets, "-o", out, "-n").code == 0


def test_goes_on_from_a_checkpoint(targets, tmp_path):
    out = tmp_path / "h"
    half = SemiDiscreteOT(clusters(300, 3))
    half.fit(
        chi2=0.1,
        checkpoint=f"{out}.checkpoint",
        callback=lambda record: not record["stage"].startswith("pool 0"),
    )
    assert run("solve", targets, "-o", out, "--chi2", "0.1").code == 0
    whole = SemiDiscreteOT(clusters(300, 3))
    whole.fit(chi2=0.1)
    np.testing.assert_array_equal(SemiDiscreteOT.load(out).heights, whole.heights)
    assert not (tmp_path / "h.checkpoint").exists()


def test_wrong_input_is_named(targets, tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"no array")
    result = run("solve", tmp_path / "bad.npy", "-o", tmp_path / "h")
    assert result.code == FAILED
    assert "not a .npy file" in " ".join(result.err.split())
    assert run("solve", targets).code == USAGE
    np.save(tmp_path / "nu.npy", np.ones(299) / 299)
    result = run("solve", targets, "--nu", tmp_path / "nu.npy", "-o", tmp_path / "h")
    assert result.code == FAILED
    assert "299" in result.err

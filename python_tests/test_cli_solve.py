# SPDX-License-Identifier: Apache-2.0
"""solve on the command line: the file it writes, what it prints, what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from cli_runner import run
from json_schema import violations
from problems import clusters

from otcuda import batch
from otcuda.cli.talk import FAILED, INTERRUPTED, USAGE
from otcuda.transport import SemiDiscreteOT, files

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
    assert "do not go through a pipe" in " ".join(run("solve", targets, "-o", "-").err.split())
    np.save(tmp_path / "nu.npy", np.ones(299) / 299)
    result = run("solve", targets, "--nu", tmp_path / "nu.npy", "-o", tmp_path / "h")
    assert result.code == FAILED
    assert "299" in result.err


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), "row 1 of 2 holds NaN"),
        (np.zeros(4), "takes y [N, D]"),
        (np.ones((3, 2), complex), "y is complex128"),
        (np.array([["a", "b"]]), "expected float32 or float64"),
        (np.array([{}, 1], object), "not a .npy file of numbers"),
    ],
)
def test_wrong_targets_are_named(array, says, tmp_path):
    np.save(tmp_path / "y.npy", array)
    result = run("solve", tmp_path / "y.npy", "-o", tmp_path / "h")
    assert result.code == FAILED
    assert says in " ".join(result.err.split())
    assert not (tmp_path / "h").exists()


def test_an_output_that_cannot_be_is_named_before_the_work(targets, tmp_path):
    fitted = mock.Mock(side_effect=AssertionError("it began to work"))
    with mock.patch.object(SemiDiscreteOT, "fit", fitted):
        result = run("solve", targets, "-o", tmp_path / "nowhere" / "h")
        assert result.code == FAILED
        assert "there is no folder" in " ".join(result.err.split())
        result = run("solve", targets, "-o", tmp_path, "-f")
    assert result.code == FAILED
    assert "is a folder" in " ".join(result.err.split())


def test_a_goal_out_of_reach_says_what_stopped_it(targets, tmp_path):
    result = run("solve", targets, "-o", tmp_path / "h", "--samples", "5000", "--json")
    record = json.loads(result.out)
    assert violations(record, SCHEMA["$defs"]["solve"], SCHEMA) == []
    assert (result.code, record["converged"], record["stopped_by"]) == (0, False, "samples")
    assert record["scanned"] <= 5000
    words = run("solve", targets, "-o", tmp_path / "h", "-f", "--samples", "5000").err
    assert f"stopped by samples, chi2 {record['chi2_interval'][0]:.4g} to" in words
    assert run("solve", targets, "-o", tmp_path / "h", "-f", "--samples", "5000", "-q").err == ""


def test_ctrl_c_leaves_a_checkpoint_and_the_same_call_goes_on(targets, tmp_path):
    out, seen = tmp_path / "h", []

    def interrupt(_words, record):
        seen.append(record)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with mock.patch.object(files.Words, "__call__", interrupt):
        assert run("solve", targets, "-o", out, "--chi2", "0.1").code == INTERRUPTED
    assert (tmp_path / "h.checkpoint").exists()
    assert not out.exists()
    assert seen[-1]["planned"] == SemiDiscreteOT(clusters(300, 3)).estimate(0.1).samples
    assert run("solve", targets, "-o", out, "--chi2", "0.1").code == 0
    whole = SemiDiscreteOT(clusters(300, 3))
    whole.fit(chi2=0.1)
    np.testing.assert_array_equal(SemiDiscreteOT.load(out).heights, whole.heights)
    assert not (tmp_path / "h.checkpoint").exists()


def test_a_checkpoint_of_another_problem_is_not_taken(targets, tmp_path):
    other = SemiDiscreteOT(clusters(300, 3, seed=1))
    other.fit(
        chi2=0.1, checkpoint=tmp_path / "h.checkpoint", callback=lambda r: r["stage"] == "descent"
    )
    result = run("solve", targets, "-o", tmp_path / "h", "--chi2", "0.1")
    assert result.code == FAILED
    assert "belongs to other targets" in " ".join(result.err.split())
    (tmp_path / "h.checkpoint").write_bytes(b"no checkpoint")
    result = run("solve", targets, "-o", tmp_path / "h", "--chi2", "0.1")
    assert "is not a checkpoint of a fit" in " ".join(result.err.split())


def test_words_are_few_and_say_how_far():
    said = []
    words = files.Words(said.append)
    record = {"stage": "descent", "samples": 100, "seconds": 3.0, "planned": 1000}
    words(record)
    assert said == []  # less than ten seconds ago
    words._last -= 11
    words(record)
    assert said == ["descent: 100 samples, 3 s, about 10 % of what is planned"]
    words(record | {"chi2": 0.5, "chi2_interval": (0.4, 0.6)})
    assert said[1] == "descent: 100 samples, 3 s, chi2 0.5 (0.4 to 0.6)"
    words._last -= 11
    words({"stage": "planar", "samples": 0, "seconds": 12.0, "planned": 0, "exact_chi2": 13.25})
    assert said[2] == "planar: 12 s, chi2 13.25"
    words(
        {
            "stage": "validation",
            "samples": 0,
            "seconds": 13.0,
            "chi2": 0.01,
            "chi2_interval": (0, 0.02),
        }
    )
    assert said[3] == "validation: 13 s, chi2 0.01 (0 to 0.02)"

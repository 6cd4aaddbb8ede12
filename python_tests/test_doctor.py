# SPDX-License-Identifier: Apache-2.0
"""The doctor: what it says is so, and its self-test notices a wrong bit and a wrong answer."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_runner import run
from json_schema import violations

import otcuda
from otcuda import doctor
from otcuda._ops import native
from otcuda.codec import load_models

SCHEMA = json.loads((Path(doctor.__file__).parent / "data" / "cli.schema.json").read_text())


@pytest.fixture(scope="module")
def result():
    return doctor.examine()


def test_json_is_what_the_schema_says(result):
    assert violations(result, SCHEMA["$defs"]["doctor"], SCHEMA) == []


def test_self_test_runs_everything_everywhere(result):
    tests = result["self_test"]
    assert tests["differences"] == []
    assert tests["runs"] == len(doctor.TESTS) * len(native.simd_levels()) * len(doctor.THREADS)
    assert 0 < tests["seconds"] < 300  # 3 on a machine of its own


def test_a_wrong_bit_is_noticed(monkeypatch):
    bits = itertools.chain([0, 0, 0, 1], itertools.repeat(0))
    monkeypatch.setattr(doctor, "TESTS", {"odd": lambda: iter([np.array([next(bits)])])})
    found = doctor.self_test()
    assert len(found["differences"]) == 1
    level = [*native.simd_levels(), "portable"][3 // len(doctor.THREADS)]
    assert found["differences"][0].startswith(f"odd at {level} on 1 threads: ")
    numbers = itertools.count()
    monkeypatch.setattr(doctor, "TESTS", {"odd": lambda: iter([np.array([next(numbers)])])})
    assert not doctor.examine()["healthy"]


@pytest.mark.parametrize("op", ["cell_mass", "power_argmax"])
def test_a_wrong_answer_is_noticed(op, monkeypatch):
    home = doctor._ops if op == "cell_mass" else doctor._power
    right = getattr(home, op)

    def wrong(*arguments):
        got = right(*arguments)
        return got + 1 if isinstance(got, np.ndarray) else (got[0], got[1] * 0)

    monkeypatch.setattr(home, op, wrong)
    monkeypatch.setattr(doctor, "TESTS", {op: doctor.TESTS[op]})
    assert "differ from NumPy's" in doctor.self_test()["differences"][0]


def test_levels_and_threads_are_as_before(monkeypatch):
    monkeypatch.setattr(doctor, "TESTS", {"cell_mass": doctor.TESTS["cell_mass"]})
    native.set_simd_level("portable")
    try:
        doctor.self_test()
        assert native.simd_level() == "portable"
    finally:
        native.set_simd_level("auto")
    doctor.self_test()
    assert native.simd_level() == native.simd_levels()[-1]


def test_why_this_level(monkeypatch):
    monkeypatch.setattr(native, "simd_levels", lambda: ["portable", "avx2"])
    monkeypatch.setattr(native, "simd_level", lambda: "avx2")
    monkeypatch.setattr(doctor, "_cpu_field", lambda name: "avx2 fma avx512f")
    monkeypatch.delenv("OTCUDA_SIMD", raising=False)
    why = doctor.simd_state()["why"]
    assert "avx512 is out: this CPU lacks avx512bw, avx512vl, avx512dq" in why
    monkeypatch.setattr(doctor, "_cpu_field", lambda name: " ".join(doctor.NEEDS["avx512"]))
    assert "avx512 is out: this build lacks it" in doctor.simd_state()["why"]
    monkeypatch.setenv("OTCUDA_SIMD", "avx2")
    assert doctor.simd_state()["why"] == "OTCUDA_SIMD=avx2"
    monkeypatch.delenv("OTCUDA_SIMD")
    monkeypatch.setattr(native, "simd_level", lambda: "portable")
    assert doctor.simd_state()["why"] == "forced by set_simd_level"


def test_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "files", lambda _: tmp_path)
    assert doctor.weights_state()["error"].endswith("no such file or directory")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    state = doctor.weights_state()
    assert (state["bytes"], state["sha256"]) == (7, digest)
    assert state["error"].startswith("weights.safetensors: ")


def test_every_family_of_weights_is_named():
    state = doctor.weights_state()
    assert state["error"] is None
    release = load_models()[0].label
    assert {"file": "weights.safetensors", "release": release, "error": None} in state["families"]


def test_text_names_what_it_found(result, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda **_: result | {"healthy": False})
    shown = run("doctor")
    assert shown.code == 1
    text = shown.out.decode()
    for part in (otcuda.__version__, native.simd_level(), "the same bits at every level"):
        assert part in text
    assert f"{len(os.sched_getaffinity(0))} cores" in text
    reported = run("doctor", "--json", "--no-test")
    assert json.loads(reported.out)["simd"] == result["simd"]

# SPDX-License-Identifier: Apache-2.0
"""eval, train and sample on the command line: what they pass on, what they print, exit codes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from cli_runner import photograph, png, run
from json_schema import violations
from PIL import Image

from otcuda import batch, evaluation

DATA = Path(batch.__file__).parent / "data"
SCHEMA = json.loads((DATA / "cli.schema.json").read_text())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2):
        (folder / f"{k}.png").write_bytes(png(photograph(96, 80, k)))
    return folder


def test_eval_prints_a_table_or_json(folder):
    given = ["eval", folder, "--codec", "webp", "--codec", "jpeg2000", "--bytes", "900"]
    result = run(*given, "--json")
    assert result.code == 0
    told = json.loads(result.out)
    schema = json.loads((Path(evaluation.__file__).parent / "eval.schema.json").read_text())
    assert violations(told, schema) == []
    assert {row["codec"] for row in told["rows"]} == {"webp", "jpeg2000"}
    assert all(r["bytes"] <= 900 for r in told["rows"] if r["convention"] == "filled")
    shown = run(*given).out.decode()
    assert "jpeg2000" in shown
    assert "900 bytes each" in shown


def test_eval_of_a_folder_with_a_broken_picture_is_exit_code_3(folder):
    (folder / "broken.png").write_text("no picture")
    result = run("eval", folder, "--codec", "webp")
    assert result.code == 3
    assert "broken.png" in result.out.decode()


def test_eval_passes_realism_and_effort_to_our_codec(folder, mosaic, monkeypatch):
    asked = []

    def evaluate(found, codecs, **options):
        asked.append((codecs, options))
        raise evaluation.datasets.ArgumentError("seen")

    monkeypatch.setitem(vars(evaluation), "evaluate", evaluate)
    result = run("eval", folder, "--codec", "otcuda", "--realism", "1", "-e", "0", "--bpp", "0.1")
    assert (result.code, "seen" in result.err) == (1, True)
    ((codec,), options) = asked[0]
    assert codec.name == "otcuda realism 1"
    assert options["bpp"] == 0.1
    assert run("eval", folder, "--bpp", "1", "--bytes", "9").code == 2


def test_train_prints_its_log_as_json(folder, tmp_path, monkeypatch):
    from otcuda.codec.networks import CodecConfig
    from otcuda.training import driver

    small = CodecConfig(32, width8=16, width16=16, context_width=16)
    blocks, codec = driver.training_blocks, driver.Codec
    monkeypatch.setattr(driver, "Codec", lambda _=None: codec(small))
    monkeypatch.setattr(driver, "training_blocks", lambda p, seed: blocks(p, seed, 2))
    arguments = ["train", tmp_path / "run", "--data", folder, "--stage", "autoencoder"]
    arguments += ["--steps", "1", "--set", "batch=1", "--set", "crop=64", "--held-out", folder]
    result = run(*arguments, "--json")
    assert result.code == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    for line in lines:
        assert violations(line, SCHEMA["$defs"]["train"], SCHEMA) == []
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [{**json.loads(line), "schema": 1, "command": "train"} for line in log] == lines
    again = run("train", tmp_path / "run", "--stage", "autoencoder")
    assert (again.code, again.out) == (0, b"")
    assert "going on from step 1" in again.err


def test_train_stopped_by_ctrl_c_is_exit_code_130(folder, tmp_path, monkeypatch):
    from otcuda.training import driver

    monkeypatch.setattr(driver, "train", lambda *_, **__: (False, True))
    result = run("train", tmp_path / "run", "--data", folder)
    assert result.code == 130
    assert "goes on" in " ".join(result.err.split())
    monkeypatch.setattr(driver, "train", lambda *_, **__: (False, False))
    assert run("train", tmp_path / "run", "--data", folder, "--minutes", "1").code == 0


@pytest.mark.skipif(
    not (files("otcuda") / "data" / "weights.safetensors").is_file(), reason="no weights here"
)
def test_samples_depend_on_seed_and_index_alone(tmp_path):
    result = run("sample", "-o", tmp_path, "--count", "2", "--seed", "3", "--json")
    assert result.code == 0
    told = [json.loads(line) for line in result.out.splitlines()]
    for line in told:
        assert violations(line, SCHEMA["$defs"]["sample"], SCHEMA) == []
    pictures = [np.asarray(Image.open(line["output"])).astype(int) for line in told]
    assert pictures[0].shape == (told[0]["height"], told[0]["width"], 3)
    assert np.abs(pictures[0] - pictures[1]).mean() > 1
    first = tmp_path / "sample-3-0000.png"
    data = first.read_bytes()
    assert run("sample", "-o", tmp_path, "--count", "1", "--seed", "3").code == 1
    first.unlink()
    assert run("sample", "-o", tmp_path, "--count", "1", "--seed", "3").code == 0
    assert first.read_bytes() == data
    assert run("sample", "-o", tmp_path, "--count", "1", "--seed", "3", "-n").code == 0
    other = tmp_path / "other"
    assert run("sample", "-o", other, "--count", "1", "--seed", "3", "--realism", "0").code == 0
    assert (other / first.name).read_bytes() != data


def test_weights_without_a_sampler_say_so(tmp_path, mosaic):
    from types import SimpleNamespace

    from otcuda import codec

    model = SimpleNamespace(digest="0123abcd" * 8, part=lambda prefix: {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "load_model", lambda path: model)
        result = run("sample", "-o", tmp_path)
    assert result.code == 1
    assert "0123abcd hold no sampler" in " ".join(result.err.split())

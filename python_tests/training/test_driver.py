# SPDX-License-Identifier: Apache-2.0
"""The training driver: settings, the run folder, what a stop or a second process does to it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import otcuda
from otcuda.codec.families import as_models
from otcuda.codec.integer_context import float_parameters, quantise_network
from otcuda.codec.networks import Codec, CodecConfig
from otcuda.training import driver
from otcuda.training.autoencoder import AutoencoderConfig, paper_preset, training_blocks
from otcuda.training.checkpoint import newest_checkpoint, save_checkpoint
from otcuda.training.growth import check_growth

SMALL = ["autoencoder.batch=1", "autoencoder.crop=64", "loop.save_every=1", "loop.log_every=1"]


@pytest.fixture
def folder(tmp_path):
    """Six pictures of 96 x 80."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(6):
        coarse = np.random.default_rng(k).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((96, 80)).save(folder / f"{k}.png")
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    config = CodecConfig(32, width8=16, width16=16, context_width=16)
    monkeypatch.setattr(driver, "Codec", lambda _=None: Codec(config))
    monkeypatch.setattr(driver, "training_blocks", lambda p, seed: training_blocks(p, seed, 2))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def settings(run, folder=None, *changes, stage="autoencoder", **more):
    sources = () if folder is None else (str(folder),)
    whole = (*SMALL, *changes) if folder is not None else changes
    return driver.read_settings(run, stage=stage, sources=sources, settings=whole, **more)


def weights(run):
    tensors, state = newest_checkpoint(run / "autoencoder")
    return state["step"], tensors


def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert driver.train(whole, settings(whole, folder, steps=4)) == (True, False)

    class BreakError(Exception):
        pass

    def breaks(record):
        if record.get("step") == 3:
            raise BreakError

    given = settings(parts, folder, steps=4)
    with pytest.raises(BreakError):
        driver.train(parts, given, callback=breaks)
    assert weights(parts)[0] == 2
    # the run folder knows the rest
    assert driver.train(parts, settings(parts)) == (True, False)
    (step, expected), (_, got) = weights(whole), weights(parts)
    assert step == 4
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    before = driver.Run(tmp_path / "new", settings(tmp_path / "new", folder), print).first_net()
    assert any(not torch.equal(expected[f"net.{k}"], v) for k, v in before.state_dict().items())


def test_a_signal_saves_a_checkpoint_and_is_told(folder, tmp_path):
    run = tmp_path / "run"

    def stops(record):
        if record.get("step") == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    given = settings(run, folder, "loop.save_every=1000", steps=50)
    assert driver.train(run, given, callback=stops) == (False, True)
    assert weights(run)[0] == 1


def test_time_is_kept(folder, tmp_path):
    run = tmp_path / "run"
    start = time.monotonic()
    assert driver.train(run, settings(run, folder, steps=10_000), 0.01) == (False, False)
    assert time.monotonic() - start < 60
    assert weights(run)[0] == 1


def test_the_log_is_json_and_the_sample_a_picture(folder, tmp_path):
    run = tmp_path / "run"
    heard = []
    driver.train(run, settings(run, folder, steps=2), callback=heard.append)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r for r in heard if "say" not in r] == log
    assert [r["step"] for r in log] == [1, 2, 2]
    assert log[-1]["validation"]["psnr_9.0"] > 5
    with Image.open(run / "autoencoder.png") as image:
        assert image.size == (2 * 96, 80)


def test_a_second_process_is_kept_out(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with (run / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(otcuda.ArgumentError, match="another process is training"):
            driver.train(run, settings(run, folder, steps=1))
    assert not (run / "autoencoder").exists()


def test_pictures_to_judge_by_are_not_trained_on(folder, tmp_path):
    run = driver.Run(tmp_path / "run", settings(tmp_path / "run", folder), print)
    assert (len(run.pictures), len(run.held_out)) == (5, 1)
    trained = [run.pictures.picture(k).tobytes() for k in range(5)]
    assert run.held_out[0].tobytes() not in trained
    given = settings(tmp_path / "run", folder, held_out=str(folder))
    run = driver.Run(tmp_path / "run", given, print)
    assert (len(run.pictures), len(run.held_out)) == (6, 6)


def test_a_new_run_may_start_from_weights(folder, tmp_path, monkeypatch):
    torch.manual_seed(5)
    net = driver.Codec()
    arrays = quantise_network(
        net.context, [(100 * torch.randn(2, 32, 4, 4), torch.full((2,), 8.0))]
    )
    context = SimpleNamespace(arrays=arrays)
    trained = SimpleNamespace(net=net, context=context, digest="0123abcd" * 8, training={})
    asked = []
    monkeypatch.setattr(driver, "_model", lambda *which: asked.append(which) or trained)
    run = driver.Run(tmp_path / "run", settings(tmp_path / "run", folder, start="shipped"), print)
    net = run.first_net()
    assert asked == [("shipped", "low")]
    for name in ("analysis", "synthesis"):
        theirs = getattr(trained.net, name).state_dict()
        ours = getattr(net, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for name, array in float_parameters(arrays).items():
        assert torch.equal(net.context.state_dict()[name], torch.from_numpy(array))
    monkeypatch.setattr(driver, "_model", lambda *which: None)
    said = []
    run = driver.Run(
        tmp_path / "run", settings(tmp_path / "run", folder, start="shipped"), said.append
    )
    run.first_net()
    assert any("no shipped weights" in record["say"] for record in said)


@pytest.mark.parametrize("preset", ["low", "middle", "high"])
def test_shipped_weights_fit_the_networks_of_their_preset(preset):
    model = driver._model("shipped", preset)
    assert model.training["preset"] == preset
    check_growth(model.net.config, driver.SIZES.get(preset, driver.low_config)())


def test_shipped_weights_that_are_not_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "PACKAGED", tmp_path)
    assert driver._model("shipped", "high") is None
    with pytest.raises(FileNotFoundError):
        driver._model(str(tmp_path / "mine.safetensors"), "high")


def test_without_pictures_no_run_folder_is_made(tmp_path):
    given = settings(tmp_path / "run", tmp_path / "none")
    with pytest.raises(otcuda.ArgumentError, match="none is not a folder of pictures"):
        driver.train(tmp_path / "run", given)
    assert not (tmp_path / "run").exists()


def test_a_stage_says_which_one_it_lacks(folder, tmp_path):
    run = driver.Run(tmp_path / "run", settings(tmp_path / "run", folder), print)
    with pytest.raises(otcuda.ArgumentError, match="lacks stage autoencoder"):
        run.trained_net()


# --- settings -------------------------------------------------------------------------------------


def configured(run, folder, *changes, **more):
    return driver.configured("autoencoder", settings(run, folder, *changes, **more))


def test_settings_change_the_preset(folder, tmp_path):
    run = tmp_path / "run"
    got = configured(run, folder, "step_range=[7.0, 8]", "learning_rate=1", "betas=[0.9, 0.95]")
    assert (got.step_range, got.betas) == ((7.0, 8), (0.9, 0.95))
    assert isinstance(got.learning_rate, float)
    plain = AutoencoderConfig()
    assert (got.muon_rate, got.steps) == (plain.muon_rate, plain.steps)
    paper = configured(run, folder, preset="paper")
    assert paper.halve_at == paper_preset().halve_at
    assert configured(run, folder, preset="high").step_range[1] < 7.5
    assert paper.crop == 64


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        (["stepz=1"], {}, "autoencoder has no setting stepz; it has steps, batch"),
        (["steps=many"], {}, "autoencoder.steps is 'many'; it must be of type int, as 20000"),
        (["steps=true"], {}, "autoencoder.steps is True"),
        (["learning_rate=true"], {}, "autoencoder.learning_rate is True"),
        (["steps"], {}, "--set steps is not KEY=VALUE"),
        (["steps=1"], {"stage": "all"}, "which stage"),
        (["none.steps=1"], {}, "none is none of autoencoder"),
        (["loop.often=1"], {}, "loop has no setting often"),
        ([], {"stage": "none"}, "--stage none is none of"),
        ([], {"preset": "wide"}, "--preset wide is none of low, middle, high"),
    ],
)
def test_wrong_settings_are_named(changes, more, message, folder, tmp_path):
    with pytest.raises(otcuda.ArgumentError, match=message):
        settings(tmp_path / "run", folder, *changes, **more)


def test_a_new_run_needs_pictures(tmp_path):
    with pytest.raises(otcuda.ArgumentError, match="say where the pictures are, by --data"):
        settings(tmp_path / "run")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    with pytest.raises(otcuda.ArgumentError, match=r"run\.json cannot be read"):
        settings(broken)


def test_weights_of_folders_and_places_are_remembered(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    run = tmp_path / "run"
    run.mkdir()
    given = driver.read_settings(run, sources=("pictures=0.5", "pictures"))
    driver._store(run, given)
    monkeypatch.chdir("/")
    assert driver.read_settings(run).sources == (f"{folder}=0.5", str(folder))


@pytest.mark.slow
def test_a_killed_process_is_gone_on_with(folder, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "otcuda", "train", str(run), "--stage", "autoencoder"]
    first = [*command, "--data", str(folder), "--steps", "200", "--threads", "1"]
    first += [part for text in SMALL for part in ("--set", text)]
    process = subprocess.Popen(first, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while newest_checkpoint(run / "autoencoder") is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    step = weights(run)[0]
    assert 1 <= step < 200
    again = [*command, "--steps", str(step + 1)]
    told = subprocess.run(again, capture_output=True, text=True, timeout=300, check=True).stderr
    assert f"going on from step {step}" in told
    assert weights(run)[0] == step + 1


def test_the_synthesis_goes_half_the_way_to_what_its_stage_left(folder, tmp_path, monkeypatch):
    config = CodecConfig(32, width8=16, width16=16, context_width=16, filter_width=8)
    monkeypatch.setattr(driver, "Codec", lambda _=None: Codec(config))
    run = driver.Run(tmp_path / "run", settings(tmp_path / "run", folder), print)
    net = driver.Codec(run._sizes)
    before = {f"average.{name}": value for name, value in net.state_dict().items()}
    save_checkpoint(run.folder / "autoencoder", 1, before, {})
    assert torch.equal(run.trained_net().synthesis.klt.weight, net.synthesis.klt.weight)
    after = {f"average.{k}": v + 1 for k, v in net.synthesis.state_dict().items()}
    save_checkpoint(run.folder / "synthesis", 1, after, {})
    moved = run.trained_net()
    torch.testing.assert_close(moved.synthesis.klt.weight, net.synthesis.klt.weight + 0.5)
    filters = (moved.synthesis.filter.see.weight, net.synthesis.filter.see.weight + 1)
    torch.testing.assert_close(*filters)  # before the stage it was nothing
    assert torch.equal(moved.analysis.klt.weight, net.analysis.klt.weight)
    untouched = run.trained_net(finished=False)
    assert torch.equal(untouched.synthesis.klt.weight, net.synthesis.klt.weight)


def test_a_start_that_is_no_file_is_named_before_it_is_kept(tmp_path, folder, monkeypatch):
    with pytest.raises(otcuda.ArgumentError, match=r"--start .*none.* is no file, nor klt"):
        settings(tmp_path / "run", folder, start="none.safetensors")
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    found = settings(tmp_path / "run", folder, start="mine.safetensors")
    assert found.start == str(tmp_path / "mine.safetensors")
    assert settings(tmp_path / "run", folder, start="shipped").start == "shipped"


def test_steps_are_of_one_stage(tmp_path, folder):
    with pytest.raises(otcuda.ArgumentError, match="--steps is of one stage"):
        settings(tmp_path / "run", folder, stage="all", steps=3)
    assert settings(tmp_path / "run", folder, steps=3).changes["autoencoder"]["steps"] == 3


def test_the_weights_say_which_heights_pay(tmp_path, folder, monkeypatch):
    """What is measured on finished weights and held-out pictures lies in their record."""
    seen = []

    def measured(model, pictures, steps):
        seen.append((model.digest, len(pictures), tuple(steps)))
        return 0.04

    monkeypatch.setattr(driver, "quality_multiplier", measured)
    run = tmp_path / "run"
    small = ("entropy.crop=64", "entropy.batch=1", "entropy.calibration=1", "entropy.counted=1")
    for stage in ("autoencoder", "entropy"):
        told = settings(run, folder, *small, stage=stage, steps=1, preset="middle")
        driver.train(run, told)
    path = driver.export(run, told)
    model = otcuda.codec.load_model(path)
    assert model.training["multiplier"] == 0.04
    assert as_models(model)[0].multiplier == 0.04
    assert seen[-1] == (model.digest, 1, (70, 109))

# SPDX-License-Identifier: Apache-2.0
"""Several weights, one container: which family codes a picture, and how its files find it again."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_runner import run
from PIL import Image
from tiny_codec import TINY, packed, structured_picture

import otcuda
from otcuda.codec import codec, compress, decompress, families, info, load_model, load_models, scale
from otcuda.codec.bitstream import Header, read_header, write_file
from otcuda.codec.codec import best_quality
from otcuda.codec.integer_context import quantise_network
from otcuda.codec.model import export_model
from otcuda.codec.networks import Codec, to_planes
from otcuda.evaluation.metrics import psnr
from otcuda.training.autoencoder import training_blocks

LOW, HIGH, FINEST = (150, 214), (60, 170), (5, 70)
BUDGETS = (150, 400, 900, 1800, 4000)


def tiny_model(pictures, latents, steps, **about):
    """The linear transform coder with so many components, fitted at the middle of its steps."""
    torch.manual_seed(0)
    net = Codec(TINY.__class__(**{**vars(TINY), "latents": latents})).eval().requires_grad_(False)
    log2_step = 3 + sum(steps) / 64
    net.start_from_klt(training_blocks(pictures, 0, batches=4), log2_step)
    rgb = torch.from_numpy(pictures.crops(4, 128, (0, 9, 9))).float()
    batch = (net.analysis(to_planes(rgb)), torch.full((4,), log2_step))
    arrays = quantise_network(net.context, [batch])
    return export_model(net, arrays, training={"steps": list(steps), **about})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    home = tmp_path_factory.mktemp("families")
    (home / "weights").mkdir()
    tiny_model(pictures, 6, LOW, preset="low").save(home / "weights" / "b.safetensors")
    tiny_model(pictures, 48, HIGH, preset="high").save(home / "weights" / "a.safetensors")
    return home / "weights"


@pytest.fixture(scope="module")
def models(folder):
    return load_models(folder)


@pytest.fixture(scope="module")
def three(models, pictures):
    finest = tiny_model(pictures, 160, FINEST, preset="high")
    record = {"id": 7, "digest": finest.digest, "training": finest.training}
    return families.Models([*models, families.Family(None, record, finest)], "three")


@pytest.fixture(scope="module")
def picture():
    return structured_picture(30)


def test_the_coarse_family_comes_first(models):
    assert [family.name for family in models] == ["b.safetensors", "a.safetensors"]
    assert [family.steps for family in models] == [LOW, HIGH]


@pytest.mark.parametrize("effort", [0, 1])
def test_each_budget_takes_the_better_family(picture, models, effort):
    wrote, errors = [], []
    for size in BUDGETS:
        data = compress(picture, bytes=size, effort=effort, model=models)
        assert len(data) <= size
        decoded = decompress(data, model=models)
        errors.append(psnr(picture, decoded))
        wrote.append(info(data).model)
        for family in models:
            try:
                alone = compress(picture, bytes=size, effort=effort, model=family.model)
            except otcuda.BudgetError:
                continue
            if info(alone).step <= family.steps[1]:
                assert psnr(picture, decompress(alone, model=family.model)) <= errors[-1]
                assert (alone == data) == (family.label == wrote[-1])
    assert errors == sorted(errors)
    assert (wrote[0], wrote[-1]) == tuple(family.label for family in models)


@pytest.mark.parametrize("effort", [0, 1])
def test_of_three_families_each_has_its_budgets(picture, three, effort):
    """The finest is asked last, and only where the one before it came near its steps."""
    wrote = []
    for size in (*BUDGETS, 9000):
        data = compress(picture, bytes=size, effort=effort, model=three)
        wrote.append(info(data).model)
        error = psnr(picture, decompress(data, model=three))
        for family in three:
            try:
                alone = compress(picture, bytes=size, effort=effort, model=family.model)
            except otcuda.BudgetError:
                continue
            if info(alone).step <= family.steps[1]:
                assert psnr(picture, decompress(alone, model=family.model)) <= error
    order = [family.label for family in three]
    assert set(wrote) == set(order)
    assert [order.index(label) for label in wrote] == sorted(map(order.index, wrote))
    qualities = [compress(picture, quality=q, effort=0, model=three) for q in (40, 110, 180)]
    assert [info(data).model for data in qualities] == order


def test_files_of_both_families_decode_from_one_folder(picture, models):
    for family in models:
        data = compress(picture, bytes=900, model=family.model)
        assert models.find(read_header(data)[0]) is family
        alone = decompress(data, model=family.model)
        assert np.array_equal(decompress(data, model=models), alone)


def test_quality_goes_on_where_there_are_weights_for_it(picture, models):
    low, high = models
    asked = (0, 40, 77, 78, 80, 120, 170)
    files = [compress(picture, quality=q, effort=0, model=models) for q in asked]
    wrote = [info(data).model for data in files]
    assert wrote == [low.label] * 3 + [high.label] * 4
    closeness = [psnr(picture, decompress(data, model=models)) for data in files]
    assert closeness == sorted(closeness)
    sizes = [len(data) for data in files]
    assert sizes == sorted(sizes)
    finest = compress(picture, quality=best_quality(models), model=models)
    assert info(finest).step - high.steps[0] in (0, 1)


def test_the_scale_has_no_leap_where_families_meet(picture, models):
    """The finer family goes on from its coarsest step that is neither smaller nor worse."""
    low, high = models
    last = (224 - low.steps[0]) / 0.96
    before = compress(picture, quality=last, effort=0, model=models)
    after = compress(picture, quality=last + 0.6, effort=0, model=models)
    assert [info(data).model for data in (before, after)] == [low.label, high.label]
    close = psnr(picture, decompress(before, model=models))
    candidates = [
        step
        for step in range(high.steps[0] + 1, high.steps[1] + 1)
        if len(data := compress(picture, quality=(224 - step) / 0.96, model=high.model))
        >= len(before)
        and psnr(picture, decompress(data, model=models)) >= close
    ]
    assert 0 <= max(candidates) - info(after).step <= 3


def test_where_families_meet_the_finer_one_is_no_worse(picture, models, monkeypatch):
    """Told that the coarser one decodes better than it does, the finer one starts finer."""
    low, high = models
    honest = codec._Task.error

    def error(task, step, values):
        if task.model is high.model:
            return honest(task, step, values)
        wanted = task_of_high.quantised(90)
        return honest(task_of_high, 90, wanted.values)

    task_of_high = codec._Picture(
        picture, False, 0, ("native", "cpu"), lambda what, share: None
    ).task(high)
    monkeypatch.setattr(codec._Task, "error", error)
    after = compress(picture, quality=(224 - low.steps[0]) / 0.96 + 0.6, effort=0, model=models)
    assert 87 <= info(after).step <= 90
    with pytest.raises(otcuda.ArgumentError, match="quality 120 needs weights for high rates"):
        compress(picture, quality=120, model=low.model)
    with pytest.raises(otcuda.ArgumentError, match=r"\[0, 200\]"):
        compress(picture, quality=201, model=models)


def test_with_effort_families_meet_where_their_curves_cross(picture, three):
    """Over the whole scale bytes and PSNR rise, and neither neighbour would do it better."""
    silent = codec._Picture(picture, False, 1, ("native", "cpu"), lambda what, share: None)
    curves = [scale._Curve(silent, family) for family in three]
    nominal = list(range(224, 5, -2))
    places = [scale.place(silent, three, n) for n in nominal]
    owners = [next(k for k, c in enumerate(curves) if c.task.model is t.model) for t, _ in places]
    assert owners == sorted(owners)
    assert set(owners) == {0, 1, 2}
    steps = [step for _, step in places]
    bits = [curves[k].bits(step) for k, step in zip(owners, steps, strict=True)]
    errors = [curves[k].error(step) for k, step in zip(owners, steps, strict=True)]
    assert bits == sorted(bits)
    assert all(len(curve._values) <= 3 for curve in curves)  # large pictures have large ones
    for before, after in itertools.pairwise(errors):
        assert after < 1.03 * before  # a step within a family may do so much harm
    for k in (1, 2):
        (bottom, top), last = scale._zones(three, 1)[k - 1], owners.index(k) - 1
        assert bottom <= nominal[last] <= top + scale.CLOSE
        assert errors[last + 1] <= errors[last]
        finer, coarser = steps[last] - 8, steps[last] + 8
        assert finer < bottom or scale._overtakes(*curves[k - 1 : k + 1], finer)
        assert coarser > top or not scale._overtakes(*curves[k - 1 : k + 1], coarser)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_family_hands_over_within_its_zone(picture, models, factor, monkeypatch):
    """However much better or worse the finer family is."""
    honest, low = codec._Task.error, models[0].model
    monkeypatch.setattr(
        codec._Task,
        "error",
        lambda task, k, v: honest(task, k, v) * (1 if task.model is low else factor),
    )
    silent = codec._Picture(picture, False, 1, ("native", "cpu"), lambda what, share: None)
    bottom, top = scale._zones(models, 1)[0]
    assert (bottom, top) == (150 - 24, 150 + 28)
    wrote = {n: scale.place(silent, models, n)[0].model is low for n in range(120, 182)}
    assert all(wrote[n] for n in range(top + 1, 182))
    assert not any(wrote[n] for n in range(120, bottom))
    assert min(n for n in wrote if wrote[n]) in (
        range(top - 4, top + 4) if factor < 1 else [bottom]
    )
    if factor > 1:  # nothing is as good as the coarser family: all that is left is the finest step
        assert scale.place(silent, models, bottom - 1)[1] == HIGH[0]


def test_zones_of_handing_over_do_not_overlap():
    def at(*finest):
        return [SimpleNamespace(steps=(k, k + 90)) for k in finest]

    for finest in ((128, 54, 13), (150, 60, 5), (100, 90, 80), (50, 49, 48), (9,)):
        zones = scale._zones(at(*finest), 1)
        assert len(zones) == len(finest) - 1
        for k, (bottom, top) in enumerate(zones):
            assert bottom <= finest[k] <= top
            assert finest[k + 1] <= bottom
            assert k == 0 or top < zones[k - 1][0]
        assert [bottom for bottom, _ in scale._zones(at(*finest), 0)] == list(finest[:-1])


def test_at_a_fixed_quality_effort_takes_the_heights_that_pay(picture, models):
    """Fewer bits for more error at the same step; what the weights do not say pays is not done."""
    high = models[1].model
    thrifty = families.Family(
        None, {"id": 7, "digest": high.digest, "training": {"steps": HIGH, "multiplier": 0.1}}, high
    )
    both = families.Models([models[0], thrifty], "both")
    for quality in (110, 150):
        plain = compress(picture, quality=quality, model=models)
        assert compress(picture, quality=quality, effort=0, model=both) == compress(
            picture, quality=quality, effort=0, model=models
        )
        spared = compress(picture, quality=quality, model=both)
        assert abs(info(spared).step - info(plain).step) < 5  # the scale starts where sizes meet
        assert len(spared) < len(plain)
        assert psnr(picture, decompress(spared, model=both)) < psnr(
            picture, decompress(plain, model=both)
        )
    step = round(224 - 0.96 * 150)
    task = codec._Picture(picture, False, 1, ("native", "cpu"), lambda what, share: None).task(
        thrifty
    )
    chosen = task.at_quality(step)
    assert np.array_equal(chosen.symbols, task.quantised(step, 0.1).symbols)
    assert not np.array_equal(chosen.symbols, task.quantised(step).symbols)
    files = [compress(picture, quality=q, model=both) for q in range(0, 171, 10)]
    assert [len(f) for f in files] == sorted(len(f) for f in files)
    closeness = [psnr(picture, decompress(f, model=both)) for f in files]
    assert closeness == sorted(closeness)


@pytest.mark.parametrize(
    "training",
    [{"multiplier": -1}, {"multiplier": float("nan")}, {"multiplier": "x"}, {"steps": [1]}],
)
def test_a_record_of_training_that_is_none_is_named(training):
    with pytest.raises(otcuda.ModelMismatchError, match=r"the weights given: (training|multip)"):
        families.Family(None, {"id": 7, "digest": "0" * 64, "training": training})


def test_weights_that_are_not_at_hand_are_named(picture, models):
    data = compress(picture, bytes=900, model=models[0].model)
    with pytest.raises(otcuda.ModelMismatchError, match=f"{models[0].label}.*at hand is .*--model"):
        decompress(data, model=models[1].model)
    header = Header(64, 64, "coded", 9, False, 5)
    with pytest.raises(otcuda.ModelMismatchError, match="release 5, at hand is"):
        decompress(write_file(header, b"x"), model=models)
    assert models.find(header) is None


def test_untrained_coarse_steps_are_not_walked_into(picture, models, monkeypatch):
    """Past its training a context model may spend more bits on a coarser step."""
    high = models[1].model
    honest = high.context.quantise

    def worse(u, k, *rest):
        if k <= HIGH[1]:
            return honest(u, k, *rest)
        return honest(u * np.float32(2 ** ((k - 40) / 32)), 40, *rest)

    monkeypatch.setattr(high.context, "quantise", worse)
    least = len(compress(picture, quality=(224 - HIGH[1]) / 0.96, model=models[1].model))
    data = compress(picture, bytes=least + 2, effort=0, model=high)
    assert info(data).step <= HIGH[1]
    with pytest.raises(otcuda.BudgetError, match=f"the least is {least} bytes"):
        compress(picture, bytes=least - 20, effort=0, model=high)


def test_without_a_head_realism_is_refused_aloud(picture, models):
    data = compress(picture, bytes=900, model=models)
    with pytest.warns(otcuda.errors.Notice, match=r"no perceptual head: realism 0\.5 is 0"):
        decoded = decompress(data, realism=0.5, model=models)
    assert np.array_equal(decoded, decompress(data, model=models))


def test_the_command_line_takes_a_folder_and_says_what_realism_became(
    picture, models, folder, tmp_path
):
    Image.fromarray(picture).save(tmp_path / "a.png")
    options = ("--model", folder, "-o")
    for size, family in ((300, models[0]), (4000, models[1])):
        coded, back = tmp_path / f"{size}.otc", tmp_path / f"{size}.png"
        assert run("compress", tmp_path / "a.png", "--bytes", str(size), *options, coded).code == 0
        assert info(coded.read_bytes()).model == family.label
        shown = run("decompress", coded, "-r", "1", *options, back)
        assert shown.code == 0
        assert "no perceptual head" in shown.err
        expected = decompress(coded.read_bytes(), model=models)
        assert np.array_equal(np.asarray(Image.open(back)), expected)


def test_a_folder_is_read_strictly_the_package_is_not(folder, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(
            (folder / f"{name}.safetensors").read_bytes()
        )
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(otcuda.ModelMismatchError, match="broken"):
        load_models(tmp_path)
    monkeypatch.setattr(families, "PACKAGED", tmp_path)
    monkeypatch.setattr(families, "_packaged", {})
    assert len(load_models()) == 2
    (tmp_path / "broken.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    with pytest.raises(otcuda.ModelMismatchError, match="more than one weights of"):
        load_models(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(otcuda.ModelMismatchError, match="holds no weights"):
        load_models(tmp_path / "none")


@pytest.fixture
def ship():
    path = Path(__file__).parents[2] / "tools" / "ship_weights.py"
    spec = importlib.util.spec_from_file_location("ship_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_shipped_weights_go_by_their_digest(folder, tmp_path, ship, picture):
    """No number is given twice: a file of an earlier release is refused, not read as another."""
    low, high = load_model(folder / "b.safetensors"), load_model(folder / "a.safetensors")
    high.id = 4
    high.save(tmp_path / "weights-high.safetensors")
    old = compress(picture, bytes=4000, model=high)
    for name in ("b", "a"):
        ship([str(folder / f"{name}.safetensors")], tmp_path)
    models = load_models(tmp_path)
    assert [family.name for family in models] == [
        "weights.safetensors",
        "weights-high.safetensors",
    ]
    data = compress(picture, bytes=4000, model=models)
    assert info(data).model == models[1].digest[:8] == high.digest[:8]
    assert models.writer(read_header(data)[0]).digest == high.digest
    assert models[0].digest == low.digest
    with pytest.raises(otcuda.ModelMismatchError, match="release 4"):
        decompress(old, model=models)

# SPDX-License-Identifier: Apache-2.0
"""Stage `entropy`: the twin is the native code, training saves its bytes, resuming is exact."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from codec.context_cases import TRAINED_SIZES, structured_latents, trained_model
from codec.dense_context import dense_parameters
from PIL import Image
from tiny_codec import packed, structured_picture, tiny_net

from otcuda.codec import integer_context
from otcuda.codec.integer_context import (
    Exponents,
    IntegerContext,
    calibrate,
    integer_arrays,
    laplace_tables,
    log2_step,
)
from otcuda.codec.networks import SCALE_HIGH, SCALE_LOW, Codec, CodecConfig, ContextModel
from otcuda.training.checkpoint import load_checkpoint, newest_checkpoint
from otcuda.training.entropy import EntropyConfig, EntropyStage, IntegerTwin
from otcuda.training.loop import LoopConfig, run_stage

CONFIG = EntropyConfig(
    steps=6, batch=2, crop=128, step_range=(110, 180), calibration=4, counted=6, counted_steps=3
)


class World:
    """Pictures, and a stage that starts from the untrained context model."""

    def __init__(self, folder):
        self.pictures = packed(folder)
        self.held_out = [structured_picture(20)[:150, :130]]
        self.net = tiny_net(self.pictures)

    def stage(self, **changes):
        config = dataclasses.replace(CONFIG, **changes)
        return EntropyStage(copy.deepcopy(self.net), self.pictures, self.held_out, config)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("entropy"))


class LatentStage(EntropyStage):
    """The stage on latents that have structure, from a trained context model that was shaken."""

    def __init__(self, config):
        sizes = {"width8": 8, "width16": 8, "analysis_blocks": (0, 0), "synthesis_blocks": (0, 0)}
        net = Codec(CodecConfig(**sizes, **TRAINED_SIZES))
        generator = torch.Generator().manual_seed(0)
        for name, weight in trained_model().state_dict().items():
            noise = torch.randn(weight.shape, generator=generator) * weight.std()
            net.context.state_dict()[name].copy_(weight + 0.3 * noise)
        super().__init__(net, None, [], config)

    def _crops(self, draw):
        first = (17 * draw[0] + 4 * draw[1]) % 60
        return structured_latents(0, 64, 16)[first : first + self.config.batch]

    def _held_out_latents(self):
        return list(structured_latents(9, 8, 20).numpy())


def with_coarse_copies(copies):
    """The trained model, its first layer seeing further copies of the first group."""
    config = CodecConfig(**TRAINED_SIZES, coarse_copies=copies)
    model, trained = ContextModel(config), trained_model()
    weights = dict(trained.state_dict())
    generator = torch.Generator().manual_seed(copies)
    last = trained.near.weight.shape[1] - 2  # "known" and the step come after the copies
    for name in ("near.weight", "far.weight"):
        old = weights[name]
        new = torch.randn(model.state_dict()[name].shape, generator=generator) * old.std()
        new[:, :last], new[:, -2:] = old[:, :last], old[:, last:]
        weights[name] = new
    model.load_state_dict(weights)
    return model.eval()


def twin_and_native(exponents, model):
    """Both codings of latents at three steps, one of them outside int8."""
    latents = structured_latents(5, 3, 13)[:, :, :, :11]
    k = torch.tensor([20, 176, 200])
    u = latents / torch.exp2(3 + k / 32)[:, None, None, None]
    u = u.clamp(-900, 900)
    coded = IntegerTwin(model, exponents)(u, k.float())
    native = IntegerContext(integer_arrays(model, exponents))
    return coded, [native.quantise(one.numpy(), int(n)) for one, n in zip(u, k, strict=True)]


@pytest.mark.parametrize(
    ("exponents", "copies", "centroids"),
    [
        (None, 1, False),
        (None, 1, True),
        (Exponents(5, 4, (4, 5, 3)), 1, False),
        (Exponents(1, 6, (0, 7, 2), 5), 1, True),
        (None, 3, True),
    ],
)
def test_the_twin_has_the_numbers_of_the_native_code(exponents, copies, centroids):
    model = copy.deepcopy(trained_model()) if copies == 1 else with_coarse_copies(copies)
    if exponents is None:
        level = torch.full((4,), log2_step(180))
        exponents = calibrate(model, [(structured_latents(0, 64, 16)[:4], level)])
    model.centroids = centroids
    coded, native = twin_and_native(exponents, model)
    unit = 2.0**-exponents.means
    for n, choice in enumerate(native):
        np.testing.assert_array_equal(coded.symbols[n].detach().numpy(), choice.symbols)
        np.testing.assert_array_equal(coded.scale_index[n].numpy(), choice.scale_index)
        np.testing.assert_array_equal(coded.value[n].numpy() / unit, choice.values)


def test_gradients_are_those_of_the_float_model(world):
    """In units that neither clip nor round much, both models have nearly one gradient."""
    model = trained_model()
    exponents = Exponents(3, 2, (3, 3, 3), means=6)
    latents = structured_latents(5, 2, 16)
    k = torch.tensor([176.0, 190.0])
    probe = torch.randn(2, *latents.shape, generator=torch.Generator().manual_seed(0))

    def gradient(means, scales):
        model.zero_grad()
        (probe[0] * means + probe[1] * scales).sum().backward()
        return torch.cat([p.grad.flatten().clone() for p in model.parameters()])

    coded = IntegerTwin(model, exponents)(latents / torch.exp2(3 + k / 32)[:, None, None, None], k)
    exact = gradient(coded.mean, coded.log2_scale)
    known = (coded.symbols + coded.mean).detach()
    smooth = gradient(*float_model(model, known, 3 + k / 32))
    assert torch.nn.functional.cosine_similarity(exact, smooth, 0) > 0.97
    assert 0.9 < exact.norm() / smooth.norm() < 1.1


def float_model(model, known, level):
    """Means and log2 scales of the float model, given the values of all symbols."""
    means, scales = dense_parameters(model, known, level)
    return means, scales.clamp(SCALE_LOW, SCALE_HIGH)


def test_activations_are_as_fine_as_the_bits_ask():
    """Units of least squared error, which fine steps make coarse, cost more at coarse ones."""
    model, level = trained_model(), torch.tensor([log2_step(k) for k in [166] * 7 + [130]])
    batches = [(structured_latents(0, 64, 16)[:8], level)]
    latents = structured_latents(3, 8, 16).numpy() / 2 ** np.float32(log2_step(166))

    def bits(exponents):
        native = IntegerContext(integer_arrays(model, exponents))
        return sum(native.quantise(u, 166).bits for u in latents)

    coarse = integer_context._of_least_error(model, batches)
    assert bits(calibrate(model, batches)) < 0.998 * bits(coarse)


@pytest.mark.parametrize(
    ("prices", "finer"),
    [
        ((1.05, 0.98, 0.99, 0.99, 0.97), (0, 1, 1, 1, 1)),  # what costs too much stays coarse
        (
            (1.004, 1.001, 1.0045, 0.99, 1.02),
            (1, 1, 0, 1, 0),
        ),  # slack is spent once, cheapest first
        ((math.inf,) * 5, (0, 0, 0, 0, 0)),  # weights that fit no finer unit
    ],
)
def test_units_are_halved_where_that_is_cheap(monkeypatch, prices, finer):
    start = Exponents(3, 2, (1, 4, 5), means=6)

    def cost(_model, exponents, _batches):
        pairs = zip(layers(exponents), layers(start), prices, strict=True)
        return math.prod(price for now, before, price in pairs if now > before)

    monkeypatch.setattr(integer_context, "_of_least_error", lambda *_: start)
    monkeypatch.setattr(integer_context, "_integer_cost", cost)
    moved = zip(layers(calibrate(None, [])), layers(start), strict=True)
    assert tuple(now - before for now, before in moved) == finer


def layers(exponents):
    """The exponents in the order of `Exponents.finer`."""
    return exponents.first, exponents.deep, *exponents.mix


def test_training_saves_bytes_of_the_native_code():
    stage = LatentStage(
        dataclasses.replace(CONFIG, steps=25, step_range=(166, 192), learning_rate=4e-3, counted=8)
    )
    before = stage.validate()
    for step in range(stage.steps):
        stage.advance(step)
    after = stage.validate()
    for k in CONFIG.judged_at:
        assert after[f"bytes_{k}"] < 0.985 * before[f"bytes_{k}"]


def test_counted_tables_save_bytes():
    stage = LatentStage(dataclasses.replace(CONFIG, step_range=(166, 192), counted=32))
    arrays = stage.arrays()
    law = arrays | {"tables": laplace_tables()}
    counted, assumed = (
        sum(IntegerContext(a).quantise(y / 2 ** log2_step(180), 180).bits for y in latents)
        for a, latents in ((arrays, stage._held_out_latents()), (law, stage._held_out_latents()))
    )
    assert counted < 0.99 * assumed


def test_the_checkpoint_holds_the_integers(world, tmp_path):
    stage = world.stage(steps=2)
    assert run_stage(stage, tmp_path, LoopConfig())
    tensors, _ = newest_checkpoint(tmp_path / "entropy")
    model = IntegerContext.from_tensors(tensors)
    arrays = stage.arrays()
    assert set(model.arrays) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(model.arrays[name], array)
    best, _ = load_checkpoint(tmp_path / "entropy" / "best.safetensors")
    IntegerContext.from_tensors(best)
    picture = np.asarray(Image.open(tmp_path / "entropy.png"))
    assert picture.shape == (192, 192)
    assert picture.max() == 255


def test_a_resumed_run_is_an_unbroken_one(world, tmp_path):
    loop = LoopConfig(save_every=3, validate_every=6)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    run_stage(world.stage(), tmp_path / "whole", loop)
    run_stage(world.stage(), tmp_path / "broken", dataclasses.replace(loop, max_seconds=0))
    assert newest_checkpoint(tmp_path / "broken" / "entropy")[1]["step"] < 6
    run_stage(world.stage(), tmp_path / "broken", loop)
    whole, broken = (
        newest_checkpoint(tmp_path / name / "entropy")[0] for name in ("whole", "broken")
    )
    assert set(whole) == set(broken)
    for name, tensor in whole.items():
        assert torch.equal(tensor, broken[name]), name


def test_only_the_context_model_moves(world):
    stage = world.stage()
    before = {k: v.clone() for k, v in stage.net.state_dict().items()}
    for step in range(2):  # the last layers start at zero: what stands before them hears later
        stage.advance(step)
    moved = {k for k, v in stage.net.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if k.startswith("context.")}

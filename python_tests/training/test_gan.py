# SPDX-License-Identifier: Apache-2.0
"""Stage `gan`: the head learns, the critic listens, a resumed run is an unbroken one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_codec import TINY, packed, structured_picture, tiny_net

from otcuda.codec.head import PerceptualHead, blend
from otcuda.codec.networks import CodecConfig, to_rgb
from otcuda.errors import ArgumentError
from otcuda.training.gan import Critic, GanConfig, GanInputs, GanStage, Window
from otcuda.training.loop import LoopConfig, run_stage
from otcuda.training.noise import NoiseConfig, NoiseStage, training_crop
from otcuda.training.texture import METRIC, FilterBank, lattice_correlation, texture_distance
from otcuda.training.transport import TransportConfig, TransportStage

NOISE = NoiseConfig(crops=32, crop=80, dimension=4, log2_step=7.5, batch=16)
TRANSPORT = TransportConfig(samples=256, codes=4, code_dimension=3, positions=2048)
# Tiny networks and few steps want a high rate and little that holds them back.
CONFIG = GanConfig(
    steps=30,
    batch=3,
    step_range=(7.0, 8.0),
    learning_rate=1e-2,
    weights={"texture": 0.5, "pixel": 0.1, "anchor": 0.1},
)


class World:
    """Everything before the stage, made once."""

    def __init__(self, folder):
        pictures = packed(folder)
        net = tiny_net(pictures)
        noise = NoiseStage(net, pictures, [], NOISE)
        run_stage(noise, folder, LoopConfig())
        maps = TransportStage(noise.law, noise.latents, net.synthesis, TRANSPORT)
        run_stage(maps, folder, LoopConfig())
        held_out = [structured_picture(20)[:160, :136]]
        parts = (maps.sampler, maps.codebook, FilterBank(filters=6))
        self.inputs = GanInputs(net, pictures, held_out, NOISE, *parts)

    def stage(self, config=CONFIG, **changes):
        torch.manual_seed(3)
        inputs = dataclasses.replace(self.inputs, **changes)
        return GanStage(PerceptualHead(TINY), inputs, config)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("gan"))


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    stage = world.stage()
    before = stage.validate()
    run_stage(stage, tmp_path_factory.mktemp("trained"), LoopConfig())
    return stage, before


# --- what training does ---------------------------------------------------------------------------


def test_untrained_head_is_judged_as_the_base(trained):
    _, before = trained
    assert before["distance_1.0"] == before["distance_0.0"]
    assert before["psnr_1.0"] == before["psnr_0.0"]


def test_training_lowers_the_distance_and_keeps_the_base(trained):
    stage, before = trained
    after = stage.validate()
    assert after["distance_0.0"] == before["distance_0.0"]
    assert after["distance_1.0"] < 0.95 * before["distance_1.0"]
    assert after["distance_1.0"] < after["distance_0.5"] < after["distance_0.0"]
    assert after["score"] == -after["distance_1.0"]


def test_head_changes_the_picture_at_realism_1_and_the_identity_does_not(trained):
    stage, _ = trained
    held = stage._prepared()[0]
    x1 = stage.average(held.features, held.x0, held.noise)
    assert (blend(held.x0, x1, 1.0) - held.x0).abs().mean() > 0.5
    identity = PerceptualHead(TINY)
    untouched = identity(held.features, held.x0, held.noise)
    assert torch.equal(blend(held.x0, untouched, 1.0), held.x0)


def test_critic_alone_moves_the_head(world):
    """Without any other loss the head still changes: the adversarial gradient arrives."""
    silence = dict.fromkeys(("perceptual", "texture", "pixel", "anchor", "lattice"), 0.0)
    stage = world.stage(dataclasses.replace(CONFIG, weights={**silence, "adversarial": 1.0}))
    stage.advance(20)  # the adversarial weight rises from nothing
    assert stage.head.out.weight.abs().max() > 0
    silent = world.stage(dataclasses.replace(CONFIG, weights={**silence, "adversarial": 0.0}))
    silent.advance(20)
    assert silent.head.out.weight.abs().max() == 0


def test_critic_learns_to_tell_the_base_from_pictures(world):
    stage = world.stage(dataclasses.replace(CONFIG, learning_rate=0.0, critic_rate=4e-3))
    batch, at = stage._batch(1000, np.random.default_rng(1)), Window(8, 8, 64)
    n, labels = len(batch.planes), stage._codebook.labels(batch.latents)
    _, x0 = stage._base(batch.latents, batch.log2_step)

    @torch.no_grad()
    def gap():
        real, fake = (
            stage.critic(at.of(planes), batch.latents[:n], labels[:n], at).mean().item()
            for planes in (batch.planes, x0[:n])
        )
        return real - fake

    before = gap()
    for step in range(60):
        stage.advance(step)
    assert gap() > before + 0.05


def test_a_fed_feature_network_is_what_trains_and_judges(world):
    class Doubled(FilterBank):
        def compare(self, metric, a, b):
            assert metric == METRIC
            return 2 * super().compare(metric, a, b)

    plain, doubled = world.stage(), world.stage(networks=Doubled(filters=6))
    assert doubled.validate()["distance_0.0"] == pytest.approx(
        2 * plain.validate()["distance_0.0"], rel=1e-5
    )
    assert doubled.advance(0)["perceptual"] == pytest.approx(
        2 * plain.advance(0)["perceptual"], rel=1e-5
    )


# --- batches --------------------------------------------------------------------------------------


def test_batch_holds_fresh_paired_and_induced_latents(world):
    stage = world.stage()
    rng = np.random.default_rng(5)
    batch = stage._batch(0, rng)
    assert batch.latents.shape == (3, 8, 5, 5)
    assert batch.planes.shape == (2, 3, 80, 80)  # nothing stands behind the induced one
    assert batch.log2_step[1:].tolist() == [7.5, 7.5]
    stored = world.inputs.sampler._latents.float()
    distance = (stored - batch.latents[1]).abs().amax((1, 2, 3))
    k = int(distance.argmin())
    assert distance[k] == 0
    assert (stored - batch.latents[2]).abs().amax((1, 2, 3)).min() > 1e-3
    behind = training_crop(world.inputs.pictures, NOISE, k)
    np.testing.assert_allclose(to_rgb(batch.planes)[1].numpy(), behind, atol=1e-3)


def test_windows_are_drawn_at_every_offset_to_the_grid(world):
    stage, seen = world.stage(), set()
    original = stage._critic_loss

    def spy(batch, labels, x1, at):
        seen.add((at.top % 16, at.left % 16))
        return original(batch, labels, x1, at)

    stage._critic_loss = spy
    for step in range(8):
        stage.advance(step)
    assert len(seen) > 5
    assert any(top % 8 for top, _ in seen)


def test_window_cuts_what_it_says(rng):
    planes = torch.randn(1, 2, 32, 32, generator=rng)
    assert torch.equal(Window(3, 5, 16).of(planes), planes[:, :, 3:19, 5:21])


@pytest.mark.parametrize(
    "change", [{"paired": 2}, {"margin": 12}, {"margin": 24}, {"weights": {"pixels": 1.0}}]
)
def test_settings_that_cannot_work_are_errors(world, change):
    with pytest.raises(ArgumentError, match=next(iter(change)) + "|batch"):
        world.stage(dataclasses.replace(CONFIG, **change))


# --- critic ---------------------------------------------------------------------------------------


def test_critic_listens_to_latents_labels_and_their_place(rng):
    torch.manual_seed(0)
    critic = Critic(8, 4).eval()
    planes = 60 * torch.randn(1, 3, 80, 80, generator=rng)
    latents = 100 * torch.randn(1, 8, 6, 6, generator=rng)
    labels = torch.randint(4, (1, 6, 6), generator=rng)
    score = critic(planes, latents, labels, Window(0, 0, 80))
    assert score.shape == (1, 1, 10, 10)
    changed = [
        critic(planes, -latents, labels, Window(0, 0, 80)),
        critic(planes, latents, (labels + 1) % 4, Window(0, 0, 80)),
        critic(planes, latents, labels, Window(16, 0, 80)),
        critic(-planes, latents, labels, Window(0, 0, 80)),
    ]
    for other in changed:
        assert (other - score).abs().max() > 1e-3


# --- texture --------------------------------------------------------------------------------------


def grain(rng, edge=64):
    return (0.5 + 0.15 * torch.randn(2, 3, edge, edge, generator=rng)).clamp(0, 1)


def test_texture_distance_forgives_other_grain_and_sees_its_loss(rng):
    bank = FilterBank()
    a, b = grain(rng), grain(rng)
    features = [bank.features(METRIC, x) for x in (a, b, torch.full_like(a, 0.5))]
    same, other, smooth = (
        texture_distance(f, features[0]) for f in features[:1] * 1 + features[1:]
    )
    assert same.abs().max() == 0
    assert (smooth > 5 * other).all()
    # The squared error says the opposite.
    assert (a - b).square().mean() > 1.5 * (a - 0.5).square().mean()


def test_lattice_correlation_sees_regular_patterns_in_flat_places_alone(rng):
    lags = [(8, 0), (0, 8), (16, 0), (0, 16)]
    tile = torch.randn(1, 3, 16, 16, generator=rng).repeat(1, 1, 8, 8)
    noise = torch.randn(1, 3, 128, 128, generator=rng)
    flat, rough = torch.zeros(1, 3, 128, 128), 60 * torch.randn(1, 3, 128, 128, generator=rng)
    assert lattice_correlation(tile, flat, lags[2:]).item() > 0.9
    assert lattice_correlation(3 * tile + noise, flat, lags[2:]).item() > 0.8
    assert lattice_correlation(noise, flat, lags).item() < 0.05
    assert lattice_correlation(0.02 * tile, flat, lags[2:]).item() < 0.1
    half = torch.cat([flat[..., :64], rough[..., 64:]], 3)
    hidden = torch.cat([noise[..., :64], tile[..., 64:]], 3)
    assert lattice_correlation(hidden, half, lags).item() < 0.1


def test_lattice_correlation_leads_away_from_the_lattice(rng):
    tile = torch.randn(1, 3, 16, 16, generator=rng).repeat(1, 1, 8, 8)
    residual = (tile + torch.randn(1, 3, 128, 128, generator=rng)).requires_grad_(True)
    flat = torch.zeros(1, 3, 128, 128)
    before = lattice_correlation(residual, flat, [(16, 0), (0, 16)]).sum()
    (gradient,) = torch.autograd.grad(before, residual)
    after = lattice_correlation(residual - 1e4 * gradient, flat, [(16, 0), (0, 16)]).sum()
    assert after < 0.7 * before


# --- resume ---------------------------------------------------------------------------------------


def test_resumed_run_equals_an_unbroken_one(world, tmp_path):
    config = dataclasses.replace(CONFIG, steps=6)
    whole, broken, resumed = (world.stage(config) for _ in range(3))
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    run_stage(whole, tmp_path / "whole", LoopConfig())
    run_stage(broken, tmp_path / "broken", LoopConfig(max_seconds=0.0))
    assert not torch.equal(broken.head.out.weight, whole.head.out.weight)
    run_stage(resumed, tmp_path / "broken", LoopConfig())
    first, second = whole.state()[0], resumed.state()[0]
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert (tmp_path / "whole" / "gan.png").stat().st_size > 0


def test_stage_on_cuda_if_there_is_one(world, device):
    stage = GanStage(PerceptualHead(TINY), world.inputs, CONFIG, device)
    terms = stage.advance(0)
    reference = world.stage().advance(0)
    assert terms["pixel"] == pytest.approx(reference["pixel"], rel=1e-2)
    world.inputs.net.to("cpu")


def test_default_config_fits_the_default_codec():
    config = GanConfig()
    assert config.batch > config.paired + config.induced
    assert CodecConfig().width8 == 96

# SPDX-License-Identifier: Apache-2.0
"""Stage `noise`: the law of pooled latents, T~, and crops that can be found again."""

from __future__ import annotations

import pytest
import torch
from tiny_codec import packed, structured_picture, tiny_net

from otcuda.codec.sampling import NoiseLaw, transported_noise
from otcuda.errors import ArgumentError
from otcuda.training.loop import LoopConfig, run_stage
from otcuda.training.noise import (
    NoiseConfig,
    NoiseStage,
    cdf_distance,
    decoded_latents,
    fit_noise,
    training_crop,
)

CONFIG = NoiseConfig(crops=10, crop=64, dimension=4, log2_step=7.0, batch=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("noise"))


def stage(pictures, config=CONFIG):
    return NoiseStage(tiny_net(pictures), pictures, [structured_picture(9)], config)


def planted(rng, n=4000):
    """Latents [n, 2, 2, 2] on a plane: mean 3, spreads 5 and 2 along two orthonormal directions."""
    directions = torch.linalg.qr(torch.randn(8, 2, generator=rng)).Q.T
    z = torch.randn(n, 2, generator=rng) * torch.tensor([5.0, 2.0])
    return (z @ directions + 3).view(n, 2, 2, 2), directions


def test_law_finds_planted_directions_and_spreads(rng):
    latents, directions = planted(rng)
    law = fit_noise(latents, 2, 7.0)
    torch.testing.assert_close(law.scale, torch.tensor([5.0, 2.0]), rtol=0.05, atol=0)
    overlap = (law.basis @ directions.T).abs()
    torch.testing.assert_close(overlap, torch.eye(2), rtol=0, atol=0.05)
    torch.testing.assert_close(law.unpool(law.pool(latents)), latents, rtol=0, atol=1e-3)


def test_one_coordinate_keeps_what_it_spans_and_no_more(rng):
    latents, _ = planted(rng)
    law = fit_noise(latents, 1, 7.0)
    lost = (law.unpool(law.pool(latents)) - latents).square().sum((1, 2, 3)).mean().item()
    assert lost == pytest.approx(4.0, rel=0.1)  # the variance of the second direction


def test_cube_is_uniform_for_normal_latents_and_not_for_a_wrong_scale(rng):
    latents, _ = planted(rng)
    law = fit_noise(latents, 2, 7.0)
    wrong = NoiseLaw(law.mean, law.basis, 2 * law.scale, law.shape, law.log2_step)
    assert cdf_distance(law.cube(law.pool(latents))) < 0.03
    assert cdf_distance(wrong.cube(wrong.pool(latents))) > 0.1


def test_transported_noise_is_the_normal_distribution_function():
    noise = torch.tensor([-1.959964, 0.0, 1.959964])
    torch.testing.assert_close(
        transported_noise(noise), torch.tensor([0.025, 0.5, 0.975]), rtol=1e-5, atol=0
    )


def test_cdf_distance_of_known_samples():
    assert cdf_distance(torch.arange(100)[:, None] / 100 + 0.005) == pytest.approx(0.005, rel=1e-4)
    assert cdf_distance(torch.full((10, 1), 0.5)) == pytest.approx(0.5)


def test_law_survives_saving(rng):
    latents, _ = planted(rng)
    law = fit_noise(latents, 2, 7.25)
    again = NoiseLaw.from_tensors(law.tensors())
    assert again.shape == (2, 2, 2)
    assert again.log2_step == 7.25
    assert torch.equal(again.pool(latents), law.pool(latents))


@pytest.mark.parametrize("dimension", [0, 10])
def test_dimension_that_the_crops_cannot_carry_is_an_error(dimension):
    with pytest.raises(ArgumentError, match=f"dimension is {dimension}"):
        fit_noise(torch.randn(10, 2, 4, 4), dimension, 7.0)


def test_latents_of_a_target_are_those_of_its_crop(pictures, tmp_path):
    noise = stage(pictures)
    assert run_stage(noise, tmp_path, LoopConfig())
    k = 7
    crop = torch.from_numpy(training_crop(pictures, CONFIG, k))[None].float()
    expected = decoded_latents(tiny_net(pictures), crop, torch.full((1,), CONFIG.log2_step))
    # One in 2048: the latents are kept as fp16.
    torch.testing.assert_close(noise.latents[k].float(), expected[0], rtol=5e-4, atol=1e-2)
    other = torch.from_numpy(training_crop(pictures, CONFIG, k + 1))[None].float()
    assert not torch.equal(crop, other)


def test_validation_tells_a_law_of_these_pictures_from_a_wrong_one(pictures, tmp_path):
    noise = stage(pictures)
    run_stage(noise, tmp_path, LoopConfig())
    right = noise.validate()
    law = noise.law
    noise.law = NoiseLaw(law.mean, law.basis.roll(1, 1), law.scale, law.shape, law.log2_step)
    assert right["score"] > noise.validate()["score"] + 0.1


def test_resumed_run_equals_an_unbroken_one(pictures, tmp_path):
    whole, broken, resumed = (stage(pictures) for _ in range(3))
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    run_stage(whole, tmp_path / "whole", LoopConfig())
    broken.steps = 2
    run_stage(broken, tmp_path / "broken", LoopConfig(save_every=1))
    run_stage(resumed, tmp_path / "broken", LoopConfig())
    for name, tensor in whole.state()[0].items():
        assert torch.equal(tensor, resumed.state()[0][name]), name
    assert (tmp_path / "whole" / "noise.png").stat().st_size > 0

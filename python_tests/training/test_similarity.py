# SPDX-License-Identifier: Apache-2.0
"""MS-SSIM as a loss: the figure of the evaluation, and a slope that raises it."""

import numpy as np
import pytest
import torch
from tiny_codec import TINY, packed

import otcuda
from otcuda.codec.networks import Codec, to_planes
from otcuda.evaluation.metrics import ms_ssim
from otcuda.training.autoencoder import AutoencoderConfig, AutoencoderStage, training_blocks
from otcuda.training.similarity import luma_similarity


def grey(rng, height, width, noise):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    a = 128 + 60 * np.sin(x / 9) * np.cos(y / 13)
    pair = [a, a + rng.normal(0, noise, a.shape)]
    return [np.repeat(p.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2) for p in pair]


def planes(picture):
    return to_planes(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float())


@pytest.mark.parametrize(("height", "width", "noise"), [(176, 192, 20), (161, 203, 5)])
def test_it_is_the_figure_of_the_evaluation(height, width, noise):
    a, b = grey(np.random.default_rng(0), height, width, noise)
    found = luma_similarity(torch.cat([planes(a), planes(a)]), torch.cat([planes(b), planes(a)]))
    assert found.shape == (2,)
    assert abs(found[0].item() - ms_ssim(a, b)) < 2e-5
    assert abs(found[1].item() - 1) < 1e-6


def test_its_slope_raises_it():
    a, b = (planes(p) for p in grey(np.random.default_rng(1), 176, 176, 20))
    b.requires_grad_(True)
    before = luma_similarity(a, b)
    (slope,) = torch.autograd.grad(before.sum(), b)
    assert torch.equal(slope[:, 1:], torch.zeros_like(slope[:, 1:]))  # chroma has no say
    step = slope / slope.abs().max()
    after = luma_similarity(a, (b + step).detach())
    assert after.item() > before.item() + 1e-3


def test_a_picture_of_one_grey_has_a_slope_too():
    a, b = planes(np.full((176, 176, 3), 100, np.uint8)), torch.zeros(1, 3, 176, 176)
    b.requires_grad_(True)
    (slope,) = torch.autograd.grad(luma_similarity(a, b).sum(), b)
    assert torch.isfinite(slope).all()


def test_the_stage_follows_it(tmp_path):
    """The same step with the term and without: other weights, and the figure is in the log."""
    pictures, moved = packed(tmp_path), []
    for weight in (0.0, 4.0):
        torch.manual_seed(0)
        net = Codec(TINY)
        net.start_from_klt(training_blocks(pictures, 0, batches=2), 8.2)
        config = AutoencoderConfig(batch=1, crop=192, similarity=weight)
        stage = AutoencoderStage(net, pictures, [], config)
        metrics = stage.advance(0)
        assert ("similarity" in metrics) == (weight > 0)
        moved.append(net.synthesis.klt.weight.detach().clone())
    assert 0 < metrics["similarity"] < 1
    assert not torch.equal(*moved)
    with pytest.raises(otcuda.ArgumentError, match="161 pixels or more, crop is 128"):
        AutoencoderStage(net, pictures, [], AutoencoderConfig(crop=128, similarity=1.0))

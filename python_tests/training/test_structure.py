# SPDX-License-Identifier: Apache-2.0
"""The MS-SSIM of losses: the reported metric without its finest scale, with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim

from otcuda.evaluation import metrics
from otcuda.training import structure


def pictures(rng, sides=(192, 224)):
    """Two pairs [2, 3, H, W]: something smooth, and it with noise or less contrast."""
    coarse = torch.rand(2, 3, 12, 14, generator=rng)
    wanted = 255 * torch.nn.functional.interpolate(coarse, sides, mode="bicubic").clamp(0, 1)
    shown = wanted.clone()
    shown[0] += 25 * torch.randn(3, *sides, generator=rng)
    shown[1] = 128 + 0.6 * (wanted[1] - 128)
    return shown, wanted


def test_constants_are_those_of_the_metric():
    assert (0.0, *metrics.WEIGHTS[1:]) == structure.WEIGHTS
    assert (structure.WINDOW, structure.SIGMA) == (metrics.WINDOW, metrics.SIGMA)


def test_it_is_the_metric_without_the_finest_scale(rng):
    shown, wanted = pictures(rng)
    ours = structure.structure_loss(shown, wanted)
    theirs = 1 - ms_ssim(
        shown, wanted, data_range=255, size_average=False, weights=[1e-9, *metrics.WEIGHTS[1:]]
    )
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    assert (ours > 0.01).all()


def test_equal_pictures_lose_nothing(rng):
    _, wanted = pictures(rng)
    assert structure.structure_loss(wanted, wanted).abs().max() < 1e-5


def test_its_gradient_restores_contrast(rng):
    """A step along it brings a pale picture nearer in the metric that is reported."""
    shown, wanted = pictures(rng)
    shown = shown[1:].clamp(0, 255).requires_grad_()
    structure.structure_loss(shown, wanted[1:]).sum().backward()
    step = shown.grad / shown.grad.abs().max()
    score = [
        metrics.ms_ssim(*(p[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy() for p in pair))
        for pair in ((shown.detach(), wanted[1:]), (shown.detach() - 40 * step, wanted[1:]))
    ]
    assert score[1] > score[0] + 1e-3


@pytest.mark.parametrize("size", [11, 16, 30])
def test_the_window_is_a_mean(size):
    matrix = structure._window(size)
    assert matrix.shape == (size - 10, size)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)

# SPDX-License-Identifier: Apache-2.0
"""PSNR by hand, MS-SSIM against pytorch-msssim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from otcuda.errors import ArgumentError, ShapeError
from otcuda.evaluation import ms_ssim, psnr


def textured(height, width, seed=0):
    """Structure on every scale: noise of each octave, so that no level of MS-SSIM is flat."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for octave in range(6):
        cell = 2**octave
        coarse = rng.normal(size=(-(-height // cell), -(-width // cell), 3))
        total += cell**0.5 * coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return (128 + 20 * total).clip(0, 255).astype(np.uint8)


def noisy(image, strength, seed=1):
    noise = np.random.default_rng(seed).normal(size=image.shape)
    return (image + strength * noise).round().clip(0, 255).astype(np.uint8)


def test_psnr_counts_every_pixel_and_channel():
    a = np.zeros((4, 5, 3), np.uint8)
    b = a.copy()
    b[3, 4] = (3, 4, 12)  # squares 9 + 16 + 144 = 169 over 60 values
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / (169 / 60)), abs=1e-6)
    assert psnr(b, a) == psnr(a, b)


def test_psnr_of_extremes():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr(black, white) == 0.0  # differences of uint8 must not wrap
    assert psnr(white, white) == math.inf


@pytest.mark.parametrize("size", [(161, 161), (161, 200), (191, 163), (176, 255)])
@pytest.mark.parametrize("strength", [2, 90])
def test_ms_ssim_is_that_of_pytorch_msssim(size, strength):
    torch = pytest.importorskip("torch")
    rival = pytest.importorskip("pytorch_msssim")
    a = textured(*size)
    b = noisy(a, strength)
    x, y = (torch.tensor(p).permute(2, 0, 1)[None].double() for p in (a, b))
    expected = rival.ms_ssim(x, y, data_range=255).item()
    assert 0.05 < expected < 0.9999  # the pair says something
    assert ms_ssim(a, b) == pytest.approx(expected, abs=2e-5)


def test_ms_ssim_where_contrast_is_negative():
    pytest.importorskip("torch")
    rival = pytest.importorskip("pytorch_msssim")
    import torch

    a = textured(176, 176)
    b = 255 - a
    x, y = (torch.tensor(p).permute(2, 0, 1)[None].double() for p in (a, b))
    assert ms_ssim(a, b) == rival.ms_ssim(x, y, data_range=255).item() == 0.0


def test_ms_ssim_of_equal_pictures_is_one():
    a = textured(161, 170)
    assert ms_ssim(a, a.copy()) == 1.0
    flat = np.full((161, 161, 3), 77, np.uint8)
    assert ms_ssim(flat, flat) == 1.0


def test_ms_ssim_is_the_mean_over_channels():
    a = textured(170, 170)
    b = noisy(a, 40)
    channels = [
        ms_ssim(np.repeat(a[..., c : c + 1], 3, 2), np.repeat(b[..., c : c + 1], 3, 2))
        for c in range(3)
    ]
    assert len(set(channels)) == 3
    assert ms_ssim(a, b) == pytest.approx(np.mean(channels), abs=1e-7)


@pytest.mark.parametrize("size", [(160, 400), (400, 160), (1, 1)])
def test_ms_ssim_says_what_is_too_small(size):
    a = np.zeros((*size, 3), np.uint8)
    with pytest.raises(ShapeError, match=f"at least 161 pixels a side; got {size[1]}x{size[0]}"):
        ms_ssim(a, a)


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
def test_bad_pairs_are_named(metric):
    a = np.zeros((170, 170, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"\[170, 170, 3\], \[170, 171, 3\]"):
        metric(a, np.zeros((170, 171, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"\[170, 170\]"):
        metric(a[..., 0], a[..., 0])
    with pytest.raises(ShapeError, match=r"\[0, 170, 3\]"):
        metric(a[:0], a[:0])
    with pytest.raises(ArgumentError, match="float64"):
        metric(a, a.astype(float))
    with pytest.raises(ArgumentError, match="list"):
        metric(a.tolist(), a)


def test_metrics_take_strided_and_read_only_pictures():
    a = textured(340, 340)
    b = noisy(a, 30)
    view_a, view_b = a[::2, ::-2], b[::2, ::-2]
    view_a.flags.writeable = False
    expected = ms_ssim(view_a.copy(), view_b.copy()), psnr(view_a.copy(), view_b.copy())
    assert (ms_ssim(view_a, view_b), psnr(view_a, view_b)) == expected

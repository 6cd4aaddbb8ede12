# SPDX-License-Identifier: Apache-2.0
"""The perceptual head: what the picture may have looked like, on top of what is known of it.

    x1 = x0 + r(features, x0, noise)      x = (1 - realism) x0 + realism x1

x0 is the frozen base's picture, the mean of all pictures that fit the file; the head restores the
texture that the mean has lost. It draws from noise planes made of the payload alone, so that every
decoder sees the same ones, and it ends in full-resolution layers, so that nothing forces its
texture onto the grid of the latents: `lattice_score` tells whether it kept off that grid.

Source of the interpolation: Freirich et al., A theory of the distortion-perception tradeoff in
Wasserstein space, NeurIPS 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from otcuda.codec.networks import NET_SCALE, CodecConfig, ResidualBlock, conv, zero
from otcuda.codec.noise import COARSE_NOISE, FEATURE_STRIDE, FINE_NOISE, noise_values
from otcuda.errors import ArgumentError, ShapeError

BLOCKS = 1  # residual blocks of the head
FINE_WIDTH = 8  # channels at full resolution
LATTICE_LAGS = (8, 16)  # periods that a pixel shuffle and the latent grid can leave behind
LATTICE_WINDOW = 64  # pixels; the flat regions searched for a lattice
LATTICE_FLOOR = 0.25  # grey levels, root mean square: a fainter residual cannot be seen


class Noise(NamedTuple):
    """Noise of mean 0 and variance 1: coarse [B, n, H/8, W/8] and fine [B, m, H, W], float32."""

    coarse: Tensor
    fine: Tensor


def noise_planes(seed: int, batch: int, height: int, width: int) -> Noise:
    """The noise of a batch of padded pictures; height and width are multiples of 8."""
    if height % FEATURE_STRIDE or width % FEATURE_STRIDE:
        raise ShapeError(f"noise_planes takes multiples of 8 pixels, got {height} x {width}")
    small = (batch, COARSE_NOISE, height // FEATURE_STRIDE, width // FEATURE_STRIDE)
    whole = (batch, FINE_NOISE, height, width)
    cut = int(np.prod(small))
    values = torch.from_numpy(noise_values(seed, (cut + int(np.prod(whole)),)))
    return Noise(values[:cut].view(small), values[cut:].view(whole))


class PerceptualHead(nn.Module):
    """Adds texture to the base's picture; untrained it adds nothing.

    A trunk at 1/8 of the resolution sees the features and coarse noise. It gives a residual by
    pixel shuffle, and a smooth gain for each fine noise plane; two 3x3 layers at full resolution
    join both with x0. 0.6 M weights, 10 kMAC a pixel.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        width = config.width8
        self.trunk = nn.Sequential(
            conv(width + COARSE_NOISE, width),
            *[ResidualBlock(width) for _ in range(BLOCKS)],
            nn.LeakyReLU(0.1),
        )
        self.residual = zero(conv(width, 3 * FEATURE_STRIDE**2))
        self.gain = nn.Conv2d(width, FINE_NOISE, 1)
        self.fine = conv(6 + FINE_NOISE, FINE_WIDTH)
        self.out = zero(conv(FINE_WIDTH, 3))

    def forward(self, features: Tensor, x0: Tensor, noise: Noise) -> Tensor:
        """The perceptual picture.

        Args:
            features: of `Synthesis.features`, [B, C, H/8, W/8].
            x0: planes of the base, [B, 3, H, W].
            noise: planes of `noise_planes`.

        Returns:
            x1: planes, [B, 3, H, W].
        """
        hidden = self.trunk(torch.cat([features, noise.coarse], 1))
        shuffled = F.pixel_shuffle(self.residual(hidden), FEATURE_STRIDE)
        # Bilinear, not nearest: the gain has no edges that could show the grid.
        gain = F.interpolate(
            self.gain(hidden), scale_factor=FEATURE_STRIDE, mode="bilinear", align_corners=False
        )
        joined = torch.cat([shuffled, x0 / NET_SCALE, gain * noise.fine], 1)
        texture = shuffled + self.out(F.leaky_relu(self.fine(joined), 0.1))
        return x0 + NET_SCALE * texture.float()

    def blend(self, features: Tensor, x0: Tensor, realism: float, seed: int) -> Tensor:
        """The picture that a decoder shows, with the noise of `seed`.

        Args:
            features: as `forward`.
            x0: as `forward`.
            realism: share of the perceptual picture, in [0, 1].
            seed: of `noise_seed`.

        Returns:
            planes, [B, 3, H, W].
        """
        noise = noise_planes(seed, len(x0), *x0.shape[2:])
        x1 = self(features, x0, Noise(*(plane.to(x0.device) for plane in noise)))
        return blend(x0, x1, realism)


def blend(x0: Tensor, x1: Tensor, realism: float) -> Tensor:
    """(1 - realism) x0 + realism x1, exactly x0 at 0 and exactly x1 at 1.

    Raises:
        ArgumentError: realism outside [0, 1].
    """
    if not 0 <= realism <= 1:
        raise ArgumentError(f"realism is {realism}; it must lie in [0, 1]")
    return torch.lerp(x0, x1, realism)


def lattice_score(residual: Tensor, picture: Tensor, flat_share: float = 0.25) -> float:
    """Autocorrelation of the residual at lags 8 and 16 where the picture is flat.

    A perceptual metric can be gamed by a regular pattern with the period of the latent grid; in
    flat regions it shows. There it correlates with itself shifted by its period, noise does not.

    Args:
        residual: x1 - x0 in grey levels, [B, C, H, W], H and W at least 96.
        picture: x0, [B, C, H, W]; its first plane says what is flat.
        flat_share: share of the windows of 64 pixels taken as flat.

    Returns:
        The larger of both lags and directions, at most 1; under 0.1 is no lattice.

    Raises:
        ShapeError: a picture too small to hold a window and the longest lag.
    """
    longest = max(LATTICE_LAGS)
    edge = LATTICE_WINDOW + 2 * longest
    if min(residual.shape[2:]) < edge or residual.shape[2:] != picture.shape[2:]:
        raise ShapeError(
            f"lattice_score takes residual and picture of one size, both edges at least {edge}; "
            f"got {list(residual.shape)} and {list(picture.shape)}"
        )
    # A mean over one period takes trends away and leaves whatever repeats with it.
    trend = F.avg_pool2d(F.avg_pool2d(residual, (longest, 1), 1), (1, longest), 1)
    detail = residual[:, :, longest // 2 :, longest // 2 :]
    detail = (detail[:, :, : trend.shape[2], : trend.shape[3]] - trend).double()
    luma = picture[:, :1, longest // 2 :, longest // 2 :].double()
    luma = luma[:, :, : trend.shape[2], : trend.shape[3]]
    flat = _flat_windows(luma, longest, flat_share)
    here = _windows(detail, 0, 0, longest)[flat]
    power = here.square().sum() + LATTICE_FLOOR**2 * here.numel()
    scores = [0.0]
    for lag in LATTICE_LAGS:
        for down, right in ((lag, 0), (0, lag)):
            there = _windows(detail, down, right, longest)[flat]
            energy = there.square().sum() + LATTICE_FLOOR**2 * there.numel()
            scores.append(float((here * there).sum() / (power * energy).sqrt()))
    return max(scores)


def _windows(planes: Tensor, down: int, right: int, margin: int) -> Tensor:
    """Windows of 64 pixels every 32, moved by (down, right) <= margin: [n, C * 64 * 64]."""
    height, width = (size - margin for size in planes.shape[2:])
    moved = planes[:, :, down : down + height, right : right + width]
    tiles = F.unfold(moved, LATTICE_WINDOW, stride=LATTICE_WINDOW // 2)
    return tiles.transpose(1, 2).reshape(-1, tiles.shape[1])


def _flat_windows(luma: Tensor, margin: int, share: float) -> Tensor:
    """Indices of the flattest windows, at least one."""
    deviation = _windows(luma, 0, 0, margin).std(1)
    return torch.argsort(deviation)[: max(1, round(share * len(deviation)))]

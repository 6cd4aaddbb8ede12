# SPDX-License-Identifier: Apache-2.0
"""Distances that see texture, for the perceptual head: features of a network, or of fixed filters.

The feature network is the user's and is handed in (`FeatureNetwork`; training knows none itself).
Without one, `FilterBank` stands in: fixed random filters at three scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

METRIC = "lpips_alex"  # what a feature network is asked for
_TEXTURE_TAPS = 3  # maps whose local statistics are matched; later ones see objects, not texture
_POOL, _POOL_STRIDE = 5, 2
_FLAT = 12.0  # deviation of the luma plane from which a neighbourhood is no longer flat
_VISIBLE = 0.25  # grey levels; fainter patterns count less


class FeatureNetwork(Protocol):
    """What the stage asks of a feature network, as `otcuda.evaluation.networks.Perceptual` has it.

    Pictures are RGB in [0, 1], [B, 3, H, W]; gradients flow to them.
    """

    def features(self, metric: str, x: Tensor) -> Sequence[Tensor]:
        """Feature maps, fine ones first, [B, C, h, w] each."""

    def compare(self, metric: str, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distance of two pictures from their maps, [B]."""


class FilterBank:
    """Responses of fixed random filters at three scales; a feature network for everyone.

    Args:
        filters: a scale.
        seed: of the filters.
    """

    def __init__(self, filters: int = 24, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        bank = torch.randn(filters, 3, 5, 5, generator=generator)
        bank = bank - bank.mean((2, 3), keepdim=True)  # blind to brightness
        self._bank = bank / bank.flatten(1).norm(dim=1)[:, None, None, None]

    def features(self, metric: str, x: Tensor) -> list[Tensor]:
        """Rectified responses at full, half and quarter resolution, every second pixel."""
        maps = []
        for scale in range(3):
            small = F.avg_pool2d(x, 2**scale) if scale else x
            maps.append(F.conv2d(small, self._bank.to(x), stride=2).relu())
        return maps

    def compare(self, metric: str, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Mean absolute difference of local means and deviations, [B]."""
        return texture_distance(a, b)


def local_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in 5x5 neighbourhoods, every second place."""
    edge = min(_POOL, *features.shape[2:])
    mean = F.avg_pool2d(features, edge, _POOL_STRIDE)
    square = F.avg_pool2d(features.square(), edge, _POOL_STRIDE)
    return mean, (square - mean.square()).clamp_min(1e-4).sqrt()


def texture_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Difference of local means and deviations of feature maps, in units of the spread of b, [B].

    The Wasserstein distance between normal laws with those statistics, tap by tap: it asks for the
    texture's strength and direction, not for its pixels.

    Source: Balle et al., Good, cheap and fast: overfitted image compression with Wasserstein
    distortion, CVPR 2025.
    """
    total = torch.zeros(len(a[0]), device=a[0].device)
    for p, q in list(zip(a, b, strict=True))[:_TEXTURE_TAPS]:
        unit = q.var() + 1e-3
        for s, t in zip(local_statistics(p), local_statistics(q), strict=True):
            total = total + (s - t).square().mean((1, 2, 3)) / unit
    return total


def lattice_correlation(
    residual: Tensor, picture: Tensor, lags: Sequence[tuple[int, int]]
) -> Tensor:
    """How regular a residual is where the picture is flat: its correlation with itself, moved.

    Regular patterns correlate with themselves far away, noise and natural grain do not. Each
    neighbourhood of 32 pixels counts by its flatness, whatever the strength of the pattern there.

    Args:
        residual: grey levels, [B, C, H, W].
        picture: planes that say what is flat, [B, C, H, W]; the first is taken.
        lags: moves (down, right) of at least 0 pixels; every one counts the same.

    Returns:
        Mean positive correlation, [B]; 0 for noise, 1 for a lattice with those periods.
    """
    trend = F.avg_pool2d(F.avg_pool2d(residual, (16, 1), 1), (1, 16), 1)  # over one period
    detail = residual[:, :, 8:-7, 8:-7] - trend
    luma = picture[:, :1, 8:-7, 8:-7]
    height = detail.shape[2] - max(down for down, _ in lags)
    width = detail.shape[3] - max(right for _, right in lags)
    here = detail[:, :, :height, :width]
    flat = 1 / (1 + _local_variance(luma[:, :, :height, :width]) / _FLAT**2)
    total = torch.zeros(len(residual), device=residual.device)
    for down, right in lags:
        there = detail[:, :, down : down + height, right : right + width]
        power = _local_mean(here.square()) * _local_mean(there.square())
        correlation = _local_mean(here * there) / (power + _VISIBLE**4).sqrt()
        total = total + (flat * correlation.relu()).sum((1, 2, 3)) / flat.sum((1, 2, 3))
    return total / len(lags)


def _local_mean(planes: Tensor) -> Tensor:
    """Mean over all channels and 32x32 pixels, every 16 pixels, [B, 1, h, w]."""
    return F.avg_pool2d(planes.mean(1, keepdim=True), 32, 16)


def _local_variance(planes: Tensor) -> Tensor:
    return (_local_mean(planes.square()) - _local_mean(planes).square()).clamp_min(0)

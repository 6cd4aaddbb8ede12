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


def lattice_energy(residual: Tensor, period: int = 16) -> Tensor:
    """Mean square of what a residual repeats with a period along both axes, [B].

    The mean of all tiles of period x period pixels keeps only what is the same in each. A residual
    without a lattice keeps its power divided by the number of tiles: that much is subtracted.

    Args:
        residual: [B, C, H, W]; rows and columns beyond whole tiles are left out.
        period: pixels.
    """
    rows, columns = residual.shape[2] // period, residual.shape[3] // period
    whole = residual[:, :, : rows * period, : columns * period]
    tiles = whole.unflatten(3, (columns, period)).unflatten(2, (rows, period))
    tiles = tiles - tiles.mean((3, 5), keepdim=True)  # a lattice has a shape, not only a level
    count = rows * columns
    power = tiles.square().mean((1, 2, 3, 4, 5))
    shared = tiles.mean((2, 4)).square().mean((1, 2, 3))
    return ((shared - power / count) / (1 - 1 / count)).clamp_min(0)

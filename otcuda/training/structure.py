# SPDX-License-Identifier: Apache-2.0
"""MS-SSIM with gradients, for losses: a little of it costs little PSNR.

At the pictures of least squared error a small step towards more structure costs squared error of
second order alone.

Source: Wang, Simoncelli, Bovik, Multiscale structural similarity, Asilomar 2003. What is reported
is `otcuda.evaluation.metrics.ms_ssim`, which has the finest scale too.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# Those of otcuda.evaluation.metrics, which is NumPy and above this package; the finest scale has 0.
WINDOW = 11
SIGMA = 1.5
WEIGHTS = (0.0, 0.2856, 0.3001, 0.2363, 0.1333)
_STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def structure_loss(shown: Tensor, wanted: Tensor) -> Tensor:
    """1 - MS-SSIM of each picture, [B], without the finest scale, whose weight is a twentieth.

    Args:
        shown: RGB in [0, 255], [B, 3, H, W], of at least 176 pixels a side.
        wanted: the same shape.
    """
    similarity = shown.new_ones(shown.shape[:2], dtype=torch.float32)
    for scale, weight in enumerate(WEIGHTS[1:]):
        shown, wanted = F.avg_pool2d(shown, 2), F.avg_pool2d(wanted, 2)
        luminance, contrast = _terms(shown.float(), wanted.float())
        if scale == len(WEIGHTS) - 2:
            contrast = luminance * contrast
        similarity = similarity * contrast.mean((2, 3)).clamp_min(1e-3).pow(weight)
    return 1 - similarity.mean(1)


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms at every place of the window."""
    rows, columns = _window(x.shape[2]).to(x.device), _window(x.shape[3]).to(x.device)

    def blurred(planes: Tensor) -> Tensor:
        return rows @ planes @ columns.T

    mean_x, mean_y = blurred(x), blurred(y)
    both = blurred(x * x + y * y) - mean_x * mean_x - mean_y * mean_y
    product = blurred(x * y) - mean_x * mean_y
    first, second = _STABLE
    luminance = (2 * mean_x * mean_y + first) / (mean_x * mean_x + mean_y * mean_y + first)
    return luminance, (2 * product + second) / (both + second)


@functools.cache
def _window(size: int) -> Tensor:
    """[size - 10, size]: the Gaussian window as a matrix, quicker than a convolution here."""
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-at.square() / (2 * SIGMA**2))
    matrix = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64)
    for n, weight in enumerate(weights / weights.sum()):
        matrix.diagonal(n)[: len(matrix)] = weight
    return matrix.float()

# SPDX-License-Identifier: Apache-2.0
"""MS-SSIM of luma as a term of a loss: `otcuda.evaluation.metrics.ms_ssim` of grey pictures.

Source: Wang, Simoncelli, Bovik, Multi-scale structural similarity for image quality assessment,
Asilomar 2003.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents, finest first
TAPS, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
LEAST_SIDE = (TAPS - 1) * 2 ** (len(SCALES) - 1) + 1  # 161 pixels: the coarsest scale has a window
FLOOR = 1e-3  # of a scale's mean: powers under one have no slope to speak of at zero


def luma_similarity(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM of the luma of pictures in planes.

    Args:
        a: planes (`otcuda.codec.networks.to_planes`), [B, 3, H, W], H and W >= 161.
        b: planes of the same shape.

    Returns:
        [B], 1 for equal pictures.
    """
    # The first plane is (R + G + B) / sqrt(3) around 128 of each.
    x, y = (planes[:, :1].float() * 3**-0.5 + 128.0 for planes in (a, b))
    s, d = x + y, x - y
    score = torch.ones(len(a), device=a.device)
    for level, exponent in enumerate(SCALES):
        if level:
            s, d = (F.avg_pool2d(p, 2, padding=(p.shape[2] % 2, p.shape[3] % 2)) for p in (s, d))
        similarity, contrast = _means(s, d)
        part = similarity if level == len(SCALES) - 1 else contrast
        score = score * part.clamp_min(FLOOR) ** exponent
    return score


def _means(s: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast term [B] of the pictures (s + d) / 2 and (s - d) / 2."""
    mean_s, mean_d, square_s, square_d = _blurred(torch.cat([s, d, s * s, d * d])).chunk(4)
    ss, dd = mean_s * mean_s, mean_d * mean_d
    var_s, var_d = square_s - ss, square_d - dd
    contrast = ((var_s - var_d) / 2 + C2) / ((var_s + var_d) / 2 + C2)
    brightness = ((ss - dd) / 2 + C1) / ((ss + dd) / 2 + C1)
    return (brightness * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _blurred(x: Tensor) -> Tensor:
    """[B, 1, H, W] under the Gaussian window, without padding."""
    height, width = (_window(side, x.device) for side in x.shape[2:])
    return height @ x @ width.T


def _window(side: int, device: torch.device) -> Tensor:
    """The window as a matrix [side - 10, side]; as convolutions they took six times as long."""
    offsets = torch.arange(TAPS, dtype=torch.float32, device=device) - TAPS // 2
    taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    rows = F.pad(taps / taps.sum(), (0, side - TAPS)).repeat(side - TAPS + 1, 1)
    return torch.stack([row.roll(k) for k, row in enumerate(rows)])

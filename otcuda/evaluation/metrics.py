# SPDX-License-Identifier: Apache-2.0
"""PSNR and MS-SSIM of 8-bit RGB pictures, in NumPy.

Both are of one pair; the figure of a set is the mean over its pictures (docs/evaluation.md says why
that is not the PSNR of the mean error). The networks' metrics are in `otcuda.evaluation.networks`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from otcuda.errors import ArgumentError, ShapeError

Pixels = NDArray[np.uint8]

WINDOW = 11
SIGMA = 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1
"""The coarsest of the five scales must be wider than the window: 161 pixels."""

_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio over all pixels and channels: `10 log10(255^2 / mean((a - b)^2))`.

    Args:
        a: picture, [H, W, 3], uint8.
        b: picture of the same shape.

    Returns:
        Decibel; `inf` for equal pictures.

    Raises:
        ShapeError: not two pictures [H, W, 3] of one size.
        ArgumentError: not uint8.

    >>> a = np.zeros((8, 8, 3), np.uint8)
    >>> round(psnr(a, a + np.uint8(1)), 3)
    48.131
    """
    check_pair("psnr", a, b)
    error = a.astype(np.float32) - b.astype(np.float32)
    mse = float(np.mean(np.square(error), dtype=np.float64))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(a: Pixels, b: Pixels) -> float:
    """Multi-scale structural similarity as pytorch-msssim computes it.

    Gaussian window of 11 taps, sigma 1.5, without padding; five scales, halved by 2x2 means (a side
    of odd length gets one zero row on both ends first); the mean over the channels R, G and B.

    Args:
        a: picture, [H, W, 3], uint8, H and W >= 161.
        b: picture of the same shape.

    Returns:
        Similarity in [0, 1]; 1 for equal pictures.

    Raises:
        ShapeError: not two pictures [H, W, 3] of one size, or a side under 161 pixels.
        ArgumentError: not uint8.

    Source: Wang, Simoncelli, Bovik, Multi-scale structural similarity for image quality assessment,
    Asilomar 2003. TensorFlow's function differs in the third digit.
    """
    check_pair("ms_ssim", a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        raise ShapeError(
            f"ms_ssim takes pictures of at least {MS_SSIM_MIN_SIDE} pixels a side; "
            f"got {a.shape[1]}x{a.shape[0]}"
        )
    scores = [_channel_ms_ssim(a[..., c].astype(np.float32), b[..., c]) for c in range(3)]
    return float(np.mean(scores))


def check_pair(name: str, a: Pixels, b: Pixels) -> None:
    """Raise unless `a` and `b` are two uint8 pictures [H, W, 3] of one size, H and W >= 1."""
    for picture in (a, b):
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
            kind = getattr(picture, "dtype", type(picture).__name__)
            raise ArgumentError(f"{name} takes uint8 NumPy arrays, got {kind}")
    if a.ndim != 3 or a.shape[2] != 3 or a.shape != b.shape or a.size == 0:
        raise ShapeError(
            f"{name} takes two pictures [H, W, 3] of one size, got {list(a.shape)}, {list(b.shape)}"
        )


def _channel_ms_ssim(x: NDArray[np.float32], y: NDArray[np.uint8]) -> float:
    # In s = x + y and d = x - y the five blurred maps of SSIM are four: xy and x^2 + y^2 are
    # (s^2 -+ d^2) / 4 and / 2.
    s, d = x + y, x - y
    score = 1.0
    for level, weight in enumerate(WEIGHTS):
        similarity, contrast = _ssim(s, d)
        last = level == len(WEIGHTS) - 1
        score *= max(similarity if last else contrast, 0.0) ** weight
        if not last:
            s, d = _halve(s), _halve(d)
    return score


def _ssim(s: NDArray[np.float32], d: NDArray[np.float32]) -> tuple[float, float]:
    """Mean SSIM and mean contrast term of the pictures (s + d) / 2 and (s - d) / 2."""
    mean_s2, mean_d2 = np.square(_blur(s)), np.square(_blur(d))
    var_s, var_d = _blur(s * s) - mean_s2, _blur(d * d) - mean_d2
    contrast = (var_s - var_d + 2 * _C2) / (var_s + var_d + 2 * _C2)
    luminance = (mean_s2 - mean_d2 + 2 * _C1) / (mean_s2 + mean_d2 + 2 * _C1)
    luminance *= contrast
    return float(np.mean(luminance, dtype=np.float64)), float(np.mean(contrast, dtype=np.float64))


def _window() -> list[float]:
    taps = [math.exp(-((k - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for k in range(WINDOW)]
    return [tap / sum(taps) for tap in taps]


def _blur(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Gaussian window along both axes, without padding: [H, W] -> [H - 10, W - 10]."""
    return _blur_rows(_blur_rows(x).T).T


def _blur_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    n, half = x.shape[0] - WINDOW + 1, WINDOW // 2
    taps = _window()
    out = np.float32(taps[half]) * x[half : half + n]
    pair = np.empty_like(out)
    for k in range(half):  # the window is symmetric: equal taps share a product
        np.add(x[k : k + n], x[WINDOW - 1 - k : WINDOW - 1 - k + n], out=pair)
        pair *= np.float32(taps[k])
        out += pair
    return out


def _halve(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """2x2 means; an odd side gets one zero on both ends first, as in pytorch-msssim."""
    if x.shape[0] % 2 or x.shape[1] % 2:
        x = np.pad(x, [(side % 2, side % 2) for side in x.shape])
    H, W = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    x = x[0:H:2] + x[1:H:2]
    return np.float32(0.25) * (x[:, 0:W:2] + x[:, 1:W:2])

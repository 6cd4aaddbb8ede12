# SPDX-License-Identifier: Apache-2.0
"""Curves of quality over rate, and what lies between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otcuda.errors import ArgumentError

LEAST_POINTS = 4  # of a curve in a Bjontegaard difference, as everywhere in the field


@dataclass(frozen=True)
class Curve:
    """Quality of a codec over its rate, on one set of pictures, at constant settings.

    Args:
        name: of the codec.
        bpp: mean bits a pixel of each setting, rising.
        quality: mean PSNR in dB (or MS-SSIM) of each setting.

    Raises:
        ArgumentError: rates that do not rise, or another number of qualities.
    """

    name: str
    bpp: Sequence[float]
    quality: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.bpp) != len(self.quality) or len(self.bpp) < 2:
            sizes = f"{len(self.bpp)} rates and {len(self.quality)} qualities"
            raise ArgumentError(
                f"{self.name} has {sizes}; a curve has as many of both, two or more"
            )
        if self.bpp[0] <= 0 or any(
            b <= a for a, b in zip(self.bpp[:-1], self.bpp[1:], strict=True)
        ):
            raise ArgumentError(f"{self.name}: rates must be positive and rise, got {self.bpp}")

    def at(self, bpp: float) -> float | None:
        """The quality at a rate, linear in its logarithm; None outside of what was measured."""
        if not self.bpp[0] <= bpp <= self.bpp[-1]:
            return None
        return float(np.interp(np.log(bpp), np.log(self.bpp), self.quality))


def bd_rate(ours: Curve, anchor: Curve, low: float = 0.0, high: float = np.inf) -> float | None:
    """How much more rate than the anchor we take for the same quality; -0.1 is 10 % less.

    Mean difference of the logarithms of the rates over the qualities that both reach, by monotone
    cubics through the points (Bjontegaard, VCEG-M33, 2001; cubics after Fritsch and Carlson).

    Args:
        ours: our curve.
        anchor: what it is compared with.
        low: least bits a pixel of the anchor that counts.
        high: most bits a pixel of the anchor that counts.

    Returns:
        The difference; None where the curves share no quality in that range.

    Raises:
        ArgumentError: a curve of fewer than four points, or whose quality does not rise.
    """
    log_rate = [_log_rate(curve) for curve in (ours, anchor)]
    quality = np.interp(
        np.log([max(low, 1e-9), min(high, 1e9)]), np.log(anchor.bpp), anchor.quality
    )
    start = max(quality[0], ours.quality[0], anchor.quality[0])
    end = min(quality[1], ours.quality[-1], anchor.quality[-1])
    if start >= end:
        return None
    a, b = (curve.integrate(start, end) for curve in log_rate)
    return float(np.exp((a - b) / (end - start)) - 1)


def _log_rate(curve: Curve):
    from scipy.interpolate import PchipInterpolator

    quality: NDArray[np.float64] = np.asarray(curve.quality, np.float64)
    if len(quality) < LEAST_POINTS or (np.diff(quality) <= 0).any():
        raise ArgumentError(
            f"{curve.name}: a Bjontegaard difference wants {LEAST_POINTS} or more points of rising "
            f"quality, got {list(curve.quality)}"
        )
    return PchipInterpolator(quality, np.log(curve.bpp))

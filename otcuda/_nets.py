# SPDX-License-Identifier: Apache-2.0
"""The native networks: pictures to latents and back, and convolutions for training.

NumPy arrays on the CPU, checked by the core. Not public.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from otcuda._ops import native, respect_torch_threads
from otcuda.errors import ArgumentError, ShapeError

# --- net ------------------------------------------------------------------------------------------
# Contract: csrc/common/net.h. Weights are packed once and stay in the core, as for context_net. The
# public face is otcuda.codec.pictures.


def _float_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}


def load_net_analysis(arrays: dict[str, np.ndarray]) -> native.NetAnalysis:
    """Handle of an analysis network; names and shapes are those of `networks.Analysis`.

    Raises:
        ArgumentError: an array is missing, or of a size that is not allowed.
        ShapeError: the shapes do not fit together.
    """
    return native.NetAnalysis(_float_arrays(arrays))


def load_net_synthesis(arrays: dict[str, np.ndarray]) -> native.NetSynthesis:
    """Handle of a synthesis network, as `load_net_analysis`."""
    return native.NetSynthesis(_float_arrays(arrays))


def load_net_head(arrays: dict[str, np.ndarray]) -> native.NetHead:
    """Handle of a perceptual head, as `load_net_analysis`; names are those of `PerceptualHead`."""
    return native.NetHead(_float_arrays(arrays))


class Perception(NamedTuple):
    """What a head adds to a picture: its share, and noise [n, 2 h, 2 w] and [m, 16 h, 16 w]."""

    head: native.NetHead
    coarse: np.ndarray
    fine: np.ndarray
    realism: float


def net_analysis(net: native.NetAnalysis, rgb: np.ndarray, callback: Any = None) -> np.ndarray:
    """Latents [M, h, w], float32, of a picture [H, W, 3], uint8; h and w in whole tiles of 4."""
    respect_torch_threads()
    rgb = np.ascontiguousarray(rgb)
    if rgb.ndim != 3 or rgb.dtype != np.uint8:
        raise ArgumentError(f"rgb is {rgb.dtype} {list(rgb.shape)}, expected uint8 [H, W, 3]")
    h, w = (-(-size // 64) * 4 for size in rgb.shape[:2])
    latents = np.empty((net.channels, h, w), np.float32)
    net.run(rgb, latents, callback)
    return latents


def net_synthesis(
    net: native.NetSynthesis,
    latents: np.ndarray,
    log2_step: float,
    perception: Perception | None = None,
    callback: Any = None,
) -> np.ndarray:
    """Planes [3, 16 h, 16 w] in units of 64, float32, of latents [M, h, w]."""
    respect_torch_threads()
    latents = np.ascontiguousarray(latents, np.float32)
    if latents.ndim != 3:
        raise ShapeError(f"net_synthesis takes latents [M, h, w]; got {list(latents.shape)}")
    planes = np.empty((3, 16 * latents.shape[1], 16 * latents.shape[2]), np.float32)
    t = 2.0 * (log2_step - 8.0)
    if perception is None:
        net.run(latents, t, planes, callback)
    else:
        net.run_with_head(latents, t, *perception, planes, callback)
    return planes


def net_picture(
    planes: np.ndarray, corner: tuple[int, int], shape: tuple[int, int], grey: bool
) -> np.ndarray:
    """The picture [H, W, 3], uint8, of a shape that lies in planes at a corner (top, left)."""
    out = np.empty((*shape, 3), np.uint8)
    native.net_picture(planes, *corner, grey, out, None)
    return out


# --- conv3 ----------------------------------------------------------------------------------------
# Contract: csrc/common/conv3.h. The public face is otcuda.training.convolution.


def conv3(x: np.ndarray, taps: np.ndarray, bias: np.ndarray, turned: bool = False) -> np.ndarray:
    """Convolution 3 x 3 of activations [n, h, w, C] with taps [9, C, O]: [n, h, w, O], float32.

    With `turned` the taps are read from the last to the first: the layer's gradient.
    """
    respect_torch_threads()
    y = np.empty((*x.shape[:3], taps.shape[2]), np.float32)
    native.conv3(x, taps, turned, bias, y)
    return y


def conv3_kernel_gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient [9, C, O] of the taps, from inputs [n, h, w, C] and the outputs' [n, h, w, O]."""
    respect_torch_threads()
    taps = np.empty((9, x.shape[3], y.shape[3]), np.float32)
    native.conv3_kernel_gradient(x, y, taps)
    return taps

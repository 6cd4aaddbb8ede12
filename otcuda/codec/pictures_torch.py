# SPDX-License-Identifier: Apache-2.0
"""Pictures through the networks by torch: the reference of `pictures`, and what gradients need.

Same files either way; pixels agree up to rounding, which torch leaves to the machine.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from otcuda.codec.model import Model
from otcuda.codec.networks import ALIGN, FILTER_STRIDE, STRIDE, CodecConfig, to_planes, to_rgb
from otcuda.codec.noise import noise_seed
from otcuda.errors import BackendError

TILE = 1024  # pixels; pictures over four times its square go tile by tile

Heard = Callable[[float], object]


class TorchNetworks:
    """Analysis and synthesis of one model on whole pictures, as `pictures.Networks`.

    Args:
        model: the weights.
        device: where the networks run; latents and pictures are NumPy arrays.

    Raises:
        BackendError: torch has no such device.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self._device = checked_device(device)
        self._net, self._head = networks_on(model, self._device)
        self._halo = reach(self._net.config)

    @torch.no_grad()
    def analyse(self, image: np.ndarray, callback: Heard | None = None) -> np.ndarray:
        """Latents float32 [M, h, w] of a picture uint8 [H, W, 3], padded to whole tiles of 64."""
        _begin(callback)
        planes = padded_planes(image).to(self._device)
        with exact_float32():
            return tiled(self._net.analysis, planes, 1, STRIDE, self._halo)[0].cpu().numpy()

    @torch.no_grad()
    def synthesise(
        self,
        latents: np.ndarray,
        step: float,
        shape: tuple[int, int],
        grey: bool = False,
        *,
        realism: float = 0.0,
        payload: bytes = b"",
        callback: Heard | None = None,
    ) -> np.ndarray:
        """Picture uint8 [H, W, 3] of latents [M, h, w].

        Args:
            latents: orthonormal units.
            step: index of the quantiser step.
            shape: height and width of the picture.
            grey: leave the colour out.
            realism: share of the perceptual head in the output.
            payload: of the file: the seed of the head's noise, so that decoding is reproducible.
            callback: hears of the beginning.
        """
        _begin(callback)
        log2_step = torch.full((1,), 3 + step / 32, device=self._device)
        net, head = self._net.synthesis, self._head if realism > 0 else None
        whole = torch.from_numpy(np.ascontiguousarray(latents, np.float32))[None].to(self._device)

        def decode(part: Tensor) -> Tensor:
            return net(part.contiguous(memory_format=torch.channels_last), log2_step)

        with exact_float32():
            planes = tiled(decode, whole, STRIDE, 1, self._halo)
            if head is not None:
                features = net.features(whole, log2_step)
                planes = head.blend(features, planes, realism, noise_seed(payload))
            if grey:
                planes[:, 1:] = 0
            rgb = to_rgb(planes)[0, :, : shape[0], : shape[1]].clamp(0, 255).round().byte()
        return rgb.permute(1, 2, 0).contiguous().cpu().numpy()


def checked_device(device: str) -> torch.device:
    """The device of a name.

    Raises:
        BackendError: torch does not know it, or cannot use it here.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendError(f"device={device!r} cannot be used: {reason}") from error
    return found


def networks_on(model: Model, device: torch.device) -> tuple[Any, Any]:
    """The model's networks and its head (or None) on a device, moved there once."""
    if device.type == "cpu":
        return model.net, model.head
    moved = _moved.setdefault(model, {})
    if device not in moved:
        parts = [copy.deepcopy(part) for part in (model.net, model.head)]
        moved[device] = tuple(None if part is None else part.to(device) for part in parts)
    return moved[device]


_moved: weakref.WeakKeyDictionary[Model, dict] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 in convolutions: with it pixels would be off by more than their last bit."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def _begin(callback: Heard | None) -> None:
    if callback is not None:
        callback(0.0)


def padded_planes(image: np.ndarray) -> Tensor:
    """Colour planes [1, 3, H, W] of a picture, continued at the edges to multiples of 64."""
    rgb = (
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    )  # a copy: it may be read-only
    pad = (0, -image.shape[1] % ALIGN, 0, -image.shape[0] % ALIGN)
    planes = to_planes(F.pad(rgb, pad, "replicate"))
    return planes.contiguous(memory_format=torch.channels_last)


def reach(config: CodecConfig) -> int:
    """Pixels around a place on which either network depends there, a multiple of `ALIGN`."""
    fine, coarse = config.analysis_blocks
    analysis = 8 * (2 * fine + 2) + 16 * (2 * coarse + 1)
    coarse, fine = config.synthesis_blocks
    synthesis = 16 * (2 * coarse + 1) + 8 * (2 * fine + 1)
    if config.filter_width:
        synthesis += FILTER_STRIDE * (2 * config.filter_blocks + 2)
    return -(-(max(analysis, synthesis) + STRIDE) // ALIGN) * ALIGN


def tiled(
    function: Callable[[Tensor], Tensor], x: Tensor, pixels_in: int, pixels_out: int, halo: int
) -> Tensor:
    """Apply a network tile by tile with a halo wide enough that no seam can appear.

    Args:
        function: maps [1, C, h, w] to [1, C', h', w'].
        x: its input.
        pixels_in: pixels of the picture a position of the input.
        pixels_out: pixels of the picture a position of the output.
        halo: pixels around a tile; see `reach`.
    """
    height, width = x.shape[2] * pixels_in, x.shape[3] * pixels_in
    if height * width <= 4 * TILE * TILE:
        return function(x).float()
    rows = []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            a, b = max(0, top - halo), min(height, top + TILE + halo)
            c, d = max(0, left - halo), min(width, left + TILE + halo)
            p, q = pixels_in, pixels_out
            part = function(x[:, :, a // p : b // p, c // p : d // p]).float()
            high, wide = min(TILE, height - top), min(TILE, width - left)
            y, z = (top - a) // q, (left - c) // q
            row.append(part[:, :, y : y + high // q, z : z + wide // q])
        rows.append(torch.cat(row, 3))
    return torch.cat(rows, 2)

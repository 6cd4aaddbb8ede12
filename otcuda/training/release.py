# SPDX-License-Identifier: Apache-2.0
"""From a run folder to one weights file: networks, integers, codebooks, sampler, head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otcuda.codec import fixed
from otcuda.codec.model import Model, export_model
from otcuda.codec.networks import Codec, to_planes
from otcuda.codec.pictures import Networks
from otcuda.codec.quantiser import dequantised, step_size
from otcuda.training.data import PackedPictures

FIXED_BITS = (121,)  # a tile of 64 x 64 pixels: 1,463 bytes for 768 x 512, with 11 of head 1,474
FIXED_STEP = 186  # what the synthesis is told; the error of the codes is that of about this step
FIXED_CROPS = 1500
MULTIPLIERS = (0.02, 0.04, 0.06, 0.08, 0.1)  # of conditional heights, c in lambda = c D^2
COARSER = 8  # steps from a quality to the next one, between which its curve is taken for straight
LEAST_GAIN = 0.01  # dB under which plain rounding stays
_DRAW = 4  # what makes these crops different from other stages' in the seed


@torch.no_grad()
def fixed_tables(net: Codec, pictures: PackedPictures, crops: int = FIXED_CROPS) -> dict:
    """Codebooks of the fixed mode, fitted to latents of training crops; names `fixed.*`."""
    coefficients = []
    for k in range(crops):
        rgb = torch.from_numpy(pictures.crops(1, 256, (0, _DRAW, k))).float()
        coefficients.append(fixed.tile_coefficients(net.analysis(to_planes(rgb))[0].numpy()))
    tables = fixed.fit_tables(np.concatenate(coefficients), FIXED_BITS, FIXED_STEP, chi2=0.05)
    return {f"fixed.{name}": array for name, array in tables.items()}


def sampler_tensors(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """What `otcuda sample` needs, small: coordinates instead of latents; names `sampler.*`."""
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("sampler.") and name != "sampler.latents":
            array = tensor.detach().cpu().numpy()
            big = array.dtype.kind == "f" and array.size > 10_000
            out[name] = array.astype(np.float16) if big else array
    return out


def assemble(
    net: Codec,
    context: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
    transport: Mapping[str, Tensor] | None,
    head: Any,
    training: Mapping[str, Any],
) -> Model:
    """The parts of a run as weights of one's own."""
    extra = dict(tables)
    extra |= sampler_tensors(transport) if transport is not None else {}
    return export_model(net, context, head=head, extra=extra, training=training)


def quality_multiplier(model: Model, pictures: Sequence[np.ndarray], steps: Sequence[int]) -> float:
    """The multiplier of conditional heights that gains most at a fixed quality, or 0.

    The gain is PSNR over that of plain rounding at the same bits, which lies on the line between
    a step and a coarser one; the mean over pictures and steps counts.

    Args:
        model: finished weights.
        pictures: held out, uint8 [H, W, 3].
        steps: bytes of the quantiser steps to measure at.
    """
    gains = []
    for picture in pictures:
        code = _coder(model, picture)
        for k in steps:
            (bits, best), (fewer, worse) = code(k, None), code(k + COARSER, None)
            slope = (best - worse) / max(math.log(bits / fewer), 1e-9)
            found = [code(k, multiplier) for multiplier in MULTIPLIERS]
            gains.append([db - best + slope * math.log(bits / b) for b, db in found])
    mean = np.mean(gains, 0) if gains else np.zeros(len(MULTIPLIERS))
    return MULTIPLIERS[int(mean.argmax())] if mean.max() > LEAST_GAIN else 0.0


def _coder(model: Model, picture: np.ndarray) -> Callable[[int, float | None], tuple[float, float]]:
    """What finds bits and PSNR of a picture at a step, with conditional heights or without."""
    networks = Networks(model)
    latents = networks.analyse(picture)

    def code(k: int, multiplier: float | None) -> tuple[float, float]:
        choice = model.context.quantise(latents / step_size(k), k, multiplier)
        values = dequantised(choice.values, k, model.context.unit)
        shown = networks.synthesise(values, k, picture.shape[:2])
        error = np.square(shown.astype(np.float32) - picture).mean()
        return max(choice.bits, 1.0), 10 * math.log10(255**2 / max(error, 1e-9))

    return code

# SPDX-License-Identifier: Apache-2.0
"""From a run folder to one weights file: networks, integers, codebooks, sampler, head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otcuda.codec import fixed
from otcuda.codec.model import Model, export_model
from otcuda.codec.networks import Codec, to_planes
from otcuda.training.data import PackedPictures

FIXED_BITS = (122,)  # a tile of 64 x 64 pixels: 1,471 bytes for 768 x 512
FIXED_STEP = 186  # what the synthesis is told; the error of the codes is that of about this step
FIXED_CROPS = 1500
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

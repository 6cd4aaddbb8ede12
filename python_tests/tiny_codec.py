# SPDX-License-Identifier: Apache-2.0
"""A codec small enough for tests: few channels, the KLT of a few structured pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from otcuda.codec.networks import Codec, CodecConfig
from otcuda.training.autoencoder import training_blocks
from otcuda.training.data import PackedPictures, Source, pack_pictures

TINY = CodecConfig(
    latents=8,
    width8=8,
    width16=8,
    analysis_blocks=(1, 1),
    synthesis_blocks=(1, 1),
    context_width=8,
    groups=(2, 4),
)


def structured_picture(seed: int, edge: int = 192) -> np.ndarray:
    """Shades, an edge and fine grain, uint8 [edge, edge, 3]."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, edge)
    angle = rng.uniform(0, np.pi)
    position = np.cos(angle) * ramp[:, None] + np.sin(angle) * ramp[None]
    shade = 90 + 80 * np.sin(rng.uniform(2, 8) * position + rng.uniform(0, 6))
    colour = rng.uniform(-40, 40, 3)
    side = position > np.median(position)
    grain = rng.normal(0, 14, (edge, edge, 1))
    picture = shade[:, :, None] + side[:, :, None] * colour + grain
    return picture.clip(0, 255).astype(np.uint8)


def packed(folder, count: int = 4) -> PackedPictures:
    """Structured pictures, packed below `folder`."""
    source = folder / "pictures"
    source.mkdir()
    for k in range(count):
        Image.fromarray(structured_picture(k)).save(source / f"{k}.png")
    return pack_pictures([Source(source)], folder / "cache")


def tiny_net(pictures: PackedPictures) -> Codec:
    """The linear transform coder of those pictures, frozen."""
    torch.manual_seed(0)
    net = Codec(TINY)
    net.start_from_klt(training_blocks(pictures, 0, batches=4))
    return net.eval().requires_grad_(False)

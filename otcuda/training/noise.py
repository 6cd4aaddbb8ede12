# SPDX-License-Identifier: Apache-2.0
"""Stage `noise`: the latents of training crops, and the noise T~ that fits them.

Each step decodes the latents of a few crops. When all are there, their principal coordinates and
the spread of each give the law of the pooled latents; the paper's source, normal noise through the
normal CDF onto the cube, is stretched by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from otcuda.codec.networks import STRIDE, Codec, quantise_hard, to_planes, to_rgb
from otcuda.codec.sampling import NoiseLaw
from otcuda.errors import ArgumentError
from otcuda.training.data import PackedPictures

_DRAW = 2  # what makes these crops different from other stages' in the seed


@dataclass(frozen=True)
class NoiseConfig:
    """Settings of the stage.

    Attributes:
        crops: training crops whose latents become targets of the OT map.
        crop: edge of a crop in pixels, a multiple of 64.
        dimension: principal coordinates kept, D.
        log2_step: of the quantiser step at which the crops are coded.
        batch: crops a step.
        seed: of the crops.
    """

    crops: int = 2048
    crop: int = 128
    dimension: int = 64
    log2_step: float = 8.6
    batch: int = 16
    seed: int = 0


def training_crop(pictures: PackedPictures, config: NoiseConfig, k: int) -> np.ndarray:
    """Crop k of the stage, uint8 [3, crop, crop]: the picture behind target k of the map."""
    return pictures.crops(1, config.crop, (config.seed, _DRAW, k))[0]


@torch.no_grad()
def decoded_latents(net: Codec, rgb: Tensor, log2_step: Tensor) -> Tensor:
    """Latents [B, M, h, w] as the decoder sees them, of pictures [B, 3, H, W] in [0, 255]."""
    planes = to_planes(rgb).contiguous(memory_format=torch.channels_last)
    return net.context(net.analysis(planes), log2_step, quantise_hard)[0]


def fit_noise(latents: Tensor, dimension: int, log2_step: float) -> NoiseLaw:
    """Principal coordinates of latents [N, M, h, w] and their spread.

    Raises:
        ArgumentError: fewer crops than coordinates and one more, or more coordinates than values.
    """
    flat = latents.flatten(1).double()
    if not 1 <= dimension < min(len(flat), flat.shape[1] + 1):
        raise ArgumentError(
            f"dimension is {dimension}; {len(flat)} crops of {flat.shape[1]} latents allow "
            f"1 to {min(len(flat) - 1, flat.shape[1])}"
        )
    mean = flat.mean(0)
    _, values, vectors = torch.linalg.svd(flat - mean, full_matrices=False)
    scale = values[:dimension] / (len(flat) - 1) ** 0.5
    # A coordinate that never moves has no law; a tiny spread keeps the cube's side positive.
    scale = scale.clamp_min(1e-6 * float(scale[0]))
    basis = vectors[:dimension]
    sign = torch.where(basis.sum(1, keepdim=True) < 0, -1.0, 1.0)  # one of two equal answers
    tensors = (mean.float(), (basis * sign).float().contiguous(), scale.float())
    return NoiseLaw(*tensors, tuple(latents.shape[1:]), log2_step)


def cdf_distance(uniform: Tensor) -> float:
    """Largest distance between the CDF of values in [0, 1] and the uniform one, mean over D.

    Args:
        uniform: [n, D].
    """
    n = len(uniform)
    ordered = uniform.double().sort(0).values
    ranks = torch.arange(1, n + 1, dtype=torch.float64)[:, None] / n
    return float(torch.maximum(ranks - ordered, ordered - ranks + 1 / n).amax(0).mean())


class NoiseStage:
    """See `otcuda.training.loop.Stage`."""

    name = "noise"

    def __init__(
        self,
        net: Codec,
        pictures: PackedPictures,
        held_out: list[np.ndarray],
        config: NoiseConfig,
    ) -> None:
        self.config = config
        self.steps = -(-config.crops // config.batch)
        self._net, self._pictures = net.eval(), pictures
        self._held_out = [crop for p in held_out for crop in _disjoint_crops(p, config.crop)]
        edge = config.crop // STRIDE
        self.latents = torch.zeros(config.crops, net.config.latents, edge, edge, dtype=torch.half)
        self.law: NoiseLaw | None = None

    def advance(self, step: int) -> dict[str, float]:
        """Decode the latents of `batch` crops; after the last, fit the law."""
        config = self.config
        first = step * config.batch
        last = min(first + config.batch, config.crops)
        crops = [training_crop(self._pictures, config, k) for k in range(first, last)]
        self.latents[first:last] = self._decode(np.stack(crops)).half()
        if last == config.crops:
            self.law = fit_noise(self.latents, config.dimension, config.log2_step)
        energy = self.latents[first:last].float().square().mean()
        return {"crops": float(last - first), "energy": energy.item()}

    def _decode(self, crops: np.ndarray) -> Tensor:
        log2_step = torch.full((len(crops),), self.config.log2_step)
        return decoded_latents(self._net, torch.from_numpy(crops).float(), log2_step)

    def validate(self) -> dict[str, float]:
        """How well the law fits crops that it was not fitted on.

        `kept` is the share of their energy that the coordinates hold; `misfit` the distance between
        the law of T~^-1 and the normal one; `score` the first minus the second.
        """
        if self.law is None or not self._held_out:
            return {"score": 0.0}
        latents = torch.cat([self._decode(crop[None]) for crop in self._held_out])
        coordinates = self.law.pool(latents)
        spread = (latents.flatten(1) - self.law.mean).square().sum()
        kept = float(coordinates.square().sum() / spread)
        misfit = cdf_distance(self.law.cube(coordinates))
        return {"kept": kept, "misfit": misfit, "score": kept - misfit}

    @torch.no_grad()
    def sample(self, path: Path) -> None:
        """Eight decoded crops, and below them what the pooled coordinates keep of them."""
        if self.law is None:
            return
        latents = self.latents[:8].float()
        both = torch.cat([latents, self.law.unpool(self.law.pool(latents))])
        planes = self._net.synthesis(both, torch.full((len(both),), self.law.log2_step))
        rgb = to_rgb(planes).clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()
        n = len(latents)
        rows = [np.concatenate(list(row), 1) for row in (rgb[:n], rgb[n:])]
        Image.fromarray(np.concatenate(rows, 0)).save(path)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Latents so far, and the law where it is fitted."""
        law = {} if self.law is None else self.law.tensors()
        tensors = {"latents": self.latents} | {f"law.{name}": t for name, t in law.items()}
        return tensors, {"threads": torch.get_num_threads()}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.latents = tensors["latents"]
        law = {k.removeprefix("law."): v for k, v in tensors.items() if k.startswith("law.")}
        self.law = NoiseLaw.from_tensors(law) if law else None


def _disjoint_crops(picture: np.ndarray, edge: int) -> list[np.ndarray]:
    """Crops [3, edge, edge] side by side, as many as fit."""
    rows, columns = picture.shape[0] // edge, picture.shape[1] // edge
    return [
        picture[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge].transpose(2, 0, 1).copy()
        for r in range(rows)
        for c in range(columns)
    ]

# SPDX-License-Identifier: Apache-2.0
"""Pictures out of noise: noise -> T~ -> (extended) OT map -> latents -> decoder.

T~ takes normal noise through the normal CDF onto the cube, coordinate by coordinate. The map takes
the cube onto pooled latents of training crops, each of which owns a cell of equal mass: no crop is
dropped and none preferred, which no network has to learn. Between cells of neighbours the extended
map mixes their latents; where neighbours do not belong together it rejects the noise.

Source: An et al., AE-OT: a new generative model based on extended semi-discrete OT, ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from otcuda.codec.head import PerceptualHead
from otcuda.codec.networks import Codec, to_rgb
from otcuda.errors import ArgumentError, ModelMismatchError
from otcuda.transport import SemiDiscreteOT

NEIGHBOURS = 4  # cells that the extended map may mix
ROUNDS = 50  # draws of noise before an extended map that rejects everything is given up


@dataclass(frozen=True)
class NoiseLaw:
    """Pooled latents: the principal coordinates of the latents of a crop, and their spread.

    Attributes:
        mean: of the flattened latents, [C], C = M h w.
        basis: orthonormal rows, [D, C].
        scale: standard deviation of each coordinate, [D].
        shape: (M, h, w) of the latents of a crop.
        log2_step: of the quantiser step at which the latents were decoded.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    shape: tuple[int, int, int]
    log2_step: float

    def pool(self, latents: Tensor) -> Tensor:
        """Coordinates [B, D] of latents [B, M, h, w]."""
        return (latents.flatten(1).float() - self.mean) @ self.basis.T

    def unpool(self, coordinates: Tensor) -> Tensor:
        """Latents [B, M, h, w] of coordinates [B, D]; what the pooling left out is the mean."""
        return (coordinates @ self.basis + self.mean).unflatten(1, self.shape)

    def cube(self, coordinates: Tensor) -> Tensor:
        """Where T~ puts coordinates in [0, 1]^D: uniform there if the latents were normal."""
        return transported_noise(coordinates / self.scale)

    def targets(self, coordinates: Tensor) -> Tensor:
        """Coordinates [N, D] as targets of the cube.

        The source that fits the latents is the cube stretched by `scale`. Stretching the targets
        instead gives the same map, since <s x, y> = <x, s y>; the unit is that of the spread.
        """
        return coordinates * self.scale / self.scale.square().mean()

    def tensors(self) -> dict[str, Tensor]:
        """The law as tensors to be saved."""
        return {
            "mean": self.mean,
            "basis": self.basis,
            "scale": self.scale,
            "shape": torch.tensor(self.shape),
            "log2_step": torch.tensor(self.log2_step, dtype=torch.float64),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Any]) -> NoiseLaw:
        """Inverse of `tensors`; NumPy arrays and half precision do too."""
        M, h, w = (int(size) for size in tensors["shape"])
        floats = (torch.as_tensor(tensors[name]).float() for name in ("mean", "basis", "scale"))
        return NoiseLaw(*floats, (M, h, w), float(tensors["log2_step"]))


def transported_noise(noise: Tensor) -> Tensor:
    """T~: normal noise through the normal CDF, coordinate by coordinate, onto the cube [0, 1]^D."""
    return torch.special.ndtr(noise)


class LatentDraw(NamedTuple):
    """Latents [n, M, h, w] that the map induces, and the crop [n] whose cell the noise fell in."""

    latents: Tensor
    index: Tensor


class LatentSampler:
    """The OT map from noise to the latents of training crops.

    Args:
        law: of the pooled latents.
        targets: `law.targets` of the coordinates of the crops, [N, D].
        heights: of the solved problem with source "gaussian_cdf", [N].
        latents: decoded latents of the crops, [N, M, h, w]; None decodes the coordinates instead,
            a hundredth of the size and a little smoother.
    """

    def __init__(
        self, law: NoiseLaw, targets: Tensor, heights: Tensor, latents: Tensor | None = None
    ) -> None:
        self.law, self.targets, self.heights = law, targets.float(), heights.float()
        self._latents = latents
        self.ot = SemiDiscreteOT(self.targets, source="gaussian_cdf")
        self.ot.heights = self.heights

    def draw(self, n: int, seed: int, extended: bool = True) -> LatentDraw:
        """Latents of fresh noise.

        Args:
            n: how many, at least 1.
            seed: of the noise.
            extended: mix the latents of neighbouring cells; False gives those of one crop each.

        Raises:
            ArgumentError: n under 1, or the extended map rejects nearly all noise.
        """
        if n < 1:
            raise ArgumentError(f"n is {n}; it must be at least 1")
        generator = torch.Generator().manual_seed(seed)
        draws: list[LatentDraw] = []
        for _ in range(ROUNDS):
            noise = torch.randn(n, len(self.law.scale), generator=generator)
            draws.append(self._of_noise(noise, extended))
            if sum(len(draw.index) for draw in draws) >= n:
                return LatentDraw(*(torch.cat(parts)[:n] for parts in zip(*draws, strict=True)))
        raise ArgumentError("the extended map rejects nearly all noise; draw with extended=False")

    def _of_noise(self, noise: Tensor, extended: bool) -> LatentDraw:
        x = transported_noise(noise)
        index = self.ot.assign(x)
        if not extended:
            return LatentDraw(self._mixed(index[:, None], torch.ones(len(x), 1)), index)
        mapped = self.ot.extended_map(x, topk=NEIGHBOURS)
        kept = mapped.valid
        latents = self._mixed(mapped.indices[kept], mapped.weights[kept].float())
        return LatentDraw(latents, index[kept])

    def _mixed(self, indices: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums [B, M, h, w] of the latents at indices [B, K]; -1 marks an empty place."""
        weights, indices = weights * (indices >= 0), indices.clamp_min(0)
        if self._latents is None:
            # The targets are coordinates in another unit: undo `law.targets`.
            unit = self.law.scale.square().mean() / self.law.scale
            points = self.targets[indices] * unit
            return self.law.unpool((weights[..., None] * points).sum(1))
        chosen = self._latents[indices].float()
        return (weights[..., None, None, None] * chosen).sum(1)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a sampler is made of, to be saved."""
        whole = {f"law.{name}": tensor for name, tensor in self.law.tensors().items()}
        whole |= {"targets": self.targets, "heights": self.heights}
        return whole if self._latents is None else {**whole, "latents": self._latents}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Any]) -> LatentSampler:
        """Inverse of `tensors`; NumPy arrays and half precision do too.

        Raises:
            ModelMismatchError: the tensors are not those of a sampler.
        """
        try:
            law = {k.removeprefix("law."): v for k, v in tensors.items() if k.startswith("law.")}
            targets, heights = (torch.as_tensor(tensors[name]) for name in ("targets", "heights"))
            latents = tensors.get("latents")
            latents = None if latents is None else torch.as_tensor(latents)
            return LatentSampler(NoiseLaw.from_tensors(law), targets, heights, latents)
        except KeyError as error:
            raise ModelMismatchError(f"these weights hold no sampler: {error} is missing") from None


@torch.no_grad()
def sample_pictures(
    net: Codec,
    sampler: LatentSampler,
    n: int,
    seed: int,
    *,
    head: PerceptualHead | None = None,
    realism: float = 1.0,
    extended: bool = True,
) -> np.ndarray:
    """Pictures of induced latents, uint8 [n, H, W, 3].

    Args:
        net: the codec whose latents the sampler holds.
        sampler: of the same codec.
        n: how many.
        seed: of the noise of the latents and of the head.
        head: the perceptual head, if there is one.
        realism: its share of the picture.
        extended: as `LatentSampler.draw`.
    """
    latents = sampler.draw(n, seed, extended).latents
    log2_step = torch.full((n,), sampler.law.log2_step)
    features = net.synthesis.features(latents, log2_step)
    planes = net.synthesis(latents, log2_step)
    if head is not None and realism > 0:
        planes = head.blend(features, planes, realism, seed)
    rgb = to_rgb(planes).clamp(0, 255).round().byte()
    return rgb.permute(0, 2, 3, 1).contiguous().numpy()

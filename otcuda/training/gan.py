# SPDX-License-Identifier: Apache-2.0
"""Stage `gan`: the perceptual head, trained against a critic on latents that the OT map induces.

The base is frozen. A batch holds three kinds of latents:

- fresh: of training pictures, moved at random inside the cells of the label codebook;
- paired: of the crops that the OT map draws from noise. Balanced heights draw each equally often,
  and its picture is known, so reconstruction losses apply (AE-OT-GAN);
- induced: mixtures by the extended map, which no picture stands behind: the critic alone judges.

The critic is conditioned on the latents and on the cell of each position, equally frequent under
balanced heights. Losses see windows at random offsets to the latent grid, and a term of their own
punishes what repeats with it.

Source: An et al., AE-OT-GAN: training GANs from data specific latent distribution, ECCV 2020.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from otcuda.codec.head import Noise, PerceptualHead, blend, lattice_score, noise_planes
from otcuda.codec.networks import ALIGN, NET_SCALE, STRIDE, Codec, to_planes, to_rgb
from otcuda.codec.sampling import LatentSampler
from otcuda.errors import ArgumentError
from otcuda.training.convolution import accelerate
from otcuda.training.data import PackedPictures
from otcuda.training.noise import NoiseConfig, decoded_latents, training_crop
from otcuda.training.texture import (
    METRIC,
    FeatureNetwork,
    FilterBank,
    lattice_correlation,
    texture_distance,
)
from otcuda.training.transport import LabelCodebook

VALIDATION_STEP = 8.8  # log2 of the quantiser step at which the head is judged
VALIDATION_REALISM = (0.0, 0.5, 1.0)
_GRID_LAGS = ((8, 0), (0, 8), (16, 0), (0, 16))  # down, right: the pixel shuffle, the latent grid
_FARTHEST = 20  # pixels of the random lags
_DRAW = 3  # what makes these crops different from other stages' in the seed


@dataclass(frozen=True)
class LossWeights:
    """What each term of the head's loss counts.

    Attributes:
        perceptual: distance of the feature network.
        texture: local statistics of its maps.
        pixel: squared error against the original, per 1000.
        anchor: squared distance to the base's picture after 8x8 means, per 100.
        adversarial: the critic's verdict; rises from nothing over the first third of the steps.
        lattice: correlation of flat regions with themselves at the periods of the latent grid, and
            at two random distances, so that no other regular pattern takes its place.
    """

    perceptual: float = 1.0
    texture: float = 0.15
    pixel: float = 1.0
    anchor: float = 1.0
    adversarial: float = 0.05
    lattice: float = 0.2


@dataclass(frozen=True)
class GanConfig:
    """Settings of the stage.

    Attributes:
        steps: optimiser steps; the rates fall to a twentieth along a cosine over them.
        batch: crops a step, of the edge that the stage `noise` used.
        paired: of them, drawn by the OT map, with their pictures.
        induced: of them, drawn by the extended map, without pictures.
        margin: pixels that a window is smaller than a crop; its offset is uniform up to it.
        learning_rate: of Adam for the head.
        critic_rate: of Adam for the critic.
        jitter: width of the move of fresh latents, in quantiser steps.
        step_range: log2 of the smallest and the largest quantiser step trained.
        weights: of the losses, by name, where they are not to be those of `LossWeights`.
        seed: of everything random.
    """

    steps: int = 900
    batch: int = 4
    paired: int = 1
    induced: int = 1
    margin: int = 16
    learning_rate: float = 1e-3
    critic_rate: float = 4e-4
    jitter: float = 0.1
    step_range: tuple[float, float] = (8.0, 9.4)
    weights: dict[str, float] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class GanInputs:
    """What earlier stages and the user give.

    Attributes:
        net: the trained base.
        pictures: for training.
        held_out: pictures [H, W, 3] for validation.
        crops: settings of the stage `noise`: they say which picture stands behind each target.
        sampler: of the stage `transport`.
        codebook: of the stage `transport`.
        networks: the user's feature network; None takes fixed filters.
    """

    net: Codec
    pictures: PackedPictures
    held_out: list[np.ndarray]
    crops: NoiseConfig
    sampler: LatentSampler
    codebook: LabelCodebook
    networks: FeatureNetwork | None = None


class Critic(nn.Module):
    """Patch discriminator with spectral norms: scores [B, 1, H/8, W/8] of planes [B, 3, H, W].

    The latents and the label of each position enter at 1/4 of the resolution; the label also
    directs the last layer (projection).

    Source: Miyato & Koyama, cGANs with projection discriminator, ICLR 2018.
    """

    def __init__(self, latents: int, labels: int, width: int = 32) -> None:
        super().__init__()
        self.condition_net = spectral_norm(nn.Conv2d(latents, 8, 1))
        self.embedding = nn.Embedding(labels, 8)
        self.direction = nn.Embedding(labels, 2 * width)
        self.first = nn.Sequential(
            spectral_norm(nn.Conv2d(3, width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
        )
        self.second = nn.Sequential(
            spectral_norm(nn.Conv2d(2 * width + 16, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
        )
        self.last = spectral_norm(nn.Conv2d(2 * width, 1, 3, 1, 1))

    def forward(self, planes: Tensor, latents: Tensor, labels: Tensor, at: Window) -> Tensor:
        """Scores of a window of the pictures, larger for real ones.

        Args:
            planes: the window, [B, 3, size, size].
            latents: of the whole crop, [B, M, h, w].
            labels: [B, h, w].
            at: where the window lies in the crop.
        """
        known = self.condition_net(latents / NET_SCALE)
        named = self.embedding(labels).permute(0, 3, 1, 2)
        condition = at.of(upsampled(torch.cat([known, named], 1)))
        seen = self.first(planes / NET_SCALE)
        hidden = self.second(torch.cat([seen, F.avg_pool2d(condition, 4)], 1))
        rows = at.of(labels[:, None].repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3))
        towards = self.direction(rows[:, 0, 4::8, 4::8]).permute(0, 3, 1, 2)
        return self.last(hidden) + (towards * hidden).mean(1, keepdim=True)


class Window(NamedTuple):
    """A square part of a crop."""

    top: int
    left: int
    size: int

    def of(self, planes: Tensor) -> Tensor:
        """That part of [B, C, H, W]."""
        rows, columns = (
            slice(self.top, self.top + self.size),
            slice(self.left, self.left + self.size),
        )
        return planes[:, :, rows, columns]


class Batch(NamedTuple):
    """Latents of a step; the first `len(planes)` have a picture."""

    latents: Tensor
    log2_step: Tensor
    planes: Tensor


class _HeldOut(NamedTuple):
    picture: Tensor  # RGB [1, 3, H, W] in [0, 255]
    x0: Tensor
    features: Tensor
    noise: Noise


def upsampled(latents: Tensor) -> Tensor:
    """Values of the latent grid at every pixel."""
    return latents.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3)


class GanStage:
    """See `otcuda.training.loop.Stage`; `average` is the head to ship.

    Raises:
        ArgumentError: a batch without fresh latents, or a margin that is not a multiple of 8.
    """

    name = "gan"

    def __init__(
        self,
        head: PerceptualHead,
        inputs: GanInputs,
        config: GanConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(config, inputs.crops.crop)
        self.config, self.steps = config, config.steps
        self._weights = _loss_weights(config.weights)
        self._device, self._inputs = torch.device(device), inputs
        net = inputs.net.eval().requires_grad_(False)
        self._net = net.to(device, memory_format=torch.channels_last)
        self._networks = inputs.networks or FilterBank()
        self._codebook = inputs.codebook
        self.head = head.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.head).requires_grad_(False)
        accelerate(self._net)
        accelerate(self.head)
        torch.manual_seed(config.seed)
        self.critic = Critic(self._net.config.latents, len(self._codebook.codes)).to(device)
        self._optimisers = {
            "head": torch.optim.Adam(self.head.parameters(), config.learning_rate, (0.9, 0.98)),
            "critic": torch.optim.Adam(self.critic.parameters(), config.critic_rate, (0.5, 0.9)),
        }
        self._held_out: list[_HeldOut] | None = None

    # --- a step -----------------------------------------------------------------------------------

    def advance(self, step: int) -> dict[str, float]:
        """One step of the head, then one of the critic, on the same batch."""
        config = self.config
        rng = np.random.default_rng([config.seed, _DRAW, step])
        torch.manual_seed(config.seed * 1_000_003 + step)
        batch = self._batch(step, rng)
        size = self._inputs.crops.crop - config.margin
        at = Window(*(int(k) for k in rng.integers(config.margin + 1, size=2)), size)
        features, x0 = self._base(batch.latents, batch.log2_step)
        noise = self._noise(int(rng.integers(1 << 62)), len(x0), *x0.shape[2:])
        share = self._share(step)
        for name in self._optimisers:
            for group in self._optimisers[name].param_groups:
                group["lr"] = share * (
                    config.learning_rate if name == "head" else config.critic_rate
                )
        labels = self._codebook.labels(batch.latents)
        x1 = self.head(features, x0, noise)
        strays = rng.integers(6, _FARTHEST + 1, (2, 2)).tolist()
        terms = self._head_terms(batch, x0, x1, at, [*_GRID_LAGS, *strays])
        weight = self._weights.adversarial * min(1.0, 3 * step / config.steps)
        self._update("head", sum(terms.values()) + weight * self._verdict(x1, batch, labels, at))
        critic_loss = self._critic_loss(batch, labels, x1.detach(), at)
        self._update("critic", critic_loss)
        self._follow(step)
        return {k: float(v.detach()) for k, v in {**terms, "critic": critic_loss}.items()}

    def _batch(self, step: int, rng: np.random.Generator) -> Batch:
        config, device = self.config, self._device
        fresh = config.batch - config.paired - config.induced
        edge, law = self._inputs.crops.crop, self._inputs.sampler.law
        crops = self._inputs.pictures.crops(fresh, edge, (config.seed, _DRAW, step))
        low, high = config.step_range
        levels = torch.from_numpy(rng.uniform(low, high, fresh)).float()
        rgb = torch.from_numpy(crops).float().to(device)
        latents = decoded_latents(self._net, rgb, levels.to(device))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        width = config.jitter * torch.exp2(levels).to(device)[:, None, None, None]
        latents = [self._codebook.jittered(latents, width, generator)]
        if config.paired:
            drawn = self._inputs.sampler.draw(config.paired, int(rng.integers(1 << 62)), False)
            latents.append(drawn.latents.to(device))
            behind = [
                training_crop(self._inputs.pictures, self._inputs.crops, int(k))
                for k in drawn.index
            ]
            rgb = torch.cat([rgb, torch.from_numpy(np.stack(behind)).float().to(device)])
        if config.induced:
            drawn = self._inputs.sampler.draw(config.induced, int(rng.integers(1 << 62)))
            latents.append(drawn.latents.to(device))
        rest = torch.full((config.paired + config.induced,), law.log2_step)
        whole = torch.cat(latents).contiguous(memory_format=torch.channels_last)
        return Batch(whole, torch.cat([levels, rest]).to(device), to_planes(rgb))

    @torch.no_grad()
    def _base(self, latents: Tensor, log2_step: Tensor) -> tuple[Tensor, Tensor]:
        """Features and picture of the frozen base."""
        synthesis = self._net.synthesis
        features = synthesis.features(latents, log2_step)
        linear = F.pixel_shuffle(synthesis.klt(latents), STRIDE)
        return features, linear + NET_SCALE * synthesis.fine(features)

    def _noise(self, seed: int, batch: int, height: int, width: int) -> Noise:
        planes = noise_planes(seed, batch, height, width)
        return Noise(*(plane.to(self._device) for plane in planes))

    def _head_terms(
        self, batch: Batch, x0: Tensor, x1: Tensor, at: Window, lags: list
    ) -> dict[str, Tensor]:
        """Weighted terms of the head's loss, without the critic's."""
        weights, n = self._weights, len(batch.planes)
        with torch.no_grad():
            wanted = self._features(at.of(batch.planes))
        given = self._features(at.of(x1[:n]))
        moved = x1 - x0
        return {
            "perceptual": weights.perceptual * self._networks.compare(METRIC, given, wanted).mean(),
            "texture": weights.texture * texture_distance(given, wanted).mean(),
            "pixel": weights.pixel * (x1[:n] - batch.planes).square().mean() / 1000,
            "anchor": weights.anchor * F.avg_pool2d(moved, 8).square().mean() / 100,
            "lattice": weights.lattice * lattice_correlation(moved, x0, lags).mean(),
        }

    def _features(self, planes: Tensor):
        return self._networks.features(METRIC, (to_rgb(planes) / 255).clamp(0, 1))

    def _verdict(self, x1: Tensor, batch: Batch, labels: Tensor, at: Window) -> Tensor:
        """What the head wants small: minus the critic's score."""
        self.critic.requires_grad_(False)
        score = self.critic(at.of(x1), batch.latents, labels, at)
        self.critic.requires_grad_(True)
        return -score.mean()

    def _critic_loss(self, batch: Batch, labels: Tensor, x1: Tensor, at: Window) -> Tensor:
        """Hinge loss on both sides."""
        n = len(batch.planes)
        real = self.critic(at.of(batch.planes), batch.latents[:n], labels[:n], at)
        fake = self.critic(at.of(x1), batch.latents, labels, at)
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def _update(self, name: str, loss: Tensor) -> None:
        optimiser = self._optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = (self.head if name == "head" else self.critic).parameters()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    def _share(self, step: int) -> float:
        warm = min(1.0, (step + 1) / 30)
        return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the head."""
        keep = min(0.995, (step + 1) / (step + 10))
        for mean, value in zip(self.average.parameters(), self.head.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)

    # --- judgement --------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Distance and PSNR on whole held-out pictures by realism, and the lattice score.

        The distance is the feature network's (LPIPS where the user gave one), else that of the
        filters; `score` is minus the distance at realism 1.
        """
        rows = [self._judged(held) for held in self._prepared()]
        if not rows:
            return {"score": 0.0}
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return {**means, "score": -means["distance_1.0"]}

    def _judged(self, held: _HeldOut) -> dict[str, float]:
        x1 = self.average(held.features, held.x0, held.noise)
        height, width = held.picture.shape[2:]
        wanted = self._networks.features(METRIC, held.picture / 255)
        out = {}
        for realism in VALIDATION_REALISM:
            rgb = to_rgb(blend(held.x0, x1, realism))[:, :, :height, :width].clamp(0, 255).round()
            given = self._networks.features(METRIC, rgb / 255)
            error = float((rgb - held.picture).square().mean())
            out[f"distance_{realism}"] = float(self._networks.compare(METRIC, given, wanted)[0])
            out[f"psnr_{realism}"] = 10 * math.log10(255**2 / max(error, 1e-9))
        if min(x1.shape[2:]) >= 128:
            out["lattice"] = lattice_score(x1 - held.x0, held.x0)
        return out

    @torch.no_grad()
    def _prepared(self) -> list[_HeldOut]:
        """What does not change of the held-out pictures, computed once."""
        if self._held_out is None:
            self._held_out = []
            for k, image in enumerate(self._inputs.held_out):
                rgb = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float().to(self._device)
                pad = (0, -rgb.shape[3] % ALIGN, 0, -rgb.shape[2] % ALIGN)
                level = torch.full((1,), VALIDATION_STEP, device=self._device)
                latents = decoded_latents(self._net, F.pad(rgb, pad, "replicate"), level)
                features, x0 = self._base(latents, level)
                noise = self._noise(k, 1, *x0.shape[2:])
                self._held_out.append(_HeldOut(rgb, x0, features, noise))
        return self._held_out

    @torch.no_grad()
    def sample(self, path: Path) -> None:
        """The first held-out picture: original, realism 0, realism 1."""
        if self._inputs.held_out:
            held = self._prepared()[0]
            height, width = held.picture.shape[2:]
            x1 = self.average(held.features, held.x0, held.noise)
            shown = [to_rgb(planes)[:, :, :height, :width] for planes in (held.x0, x1)]
            row = torch.cat([held.picture, *shown], 3)[0].clamp(0, 255).round().byte()
            Image.fromarray(row.permute(1, 2, 0).cpu().numpy()).save(path)

    # --- resume -----------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Head, its average, critic and the optimisers' moments."""
        tensors: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            tensors |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
        for name, optimiser in self._optimisers.items():
            for k, entry in optimiser.state_dict()["state"].items():
                tensors |= {
                    f"adam.{name}.{k}.{key}": torch.as_tensor(v) for key, v in entry.items()
                }
        return tensors, {"threads": torch.get_num_threads()}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        for name, module in self._modules().items():
            module.load_state_dict(_part(tensors, f"{name}."))
        for name, optimiser in self._optimisers.items():
            whole = optimiser.state_dict()
            whole["state"] = {}
            for entry, tensor in _part(tensors, f"adam.{name}.").items():
                number, key = entry.split(".", 1)
                whole["state"].setdefault(int(number), {})[key] = tensor
            optimiser.load_state_dict(whole)

    def _modules(self) -> dict[str, nn.Module]:
        return {"head": self.head, "average": self.average, "critic": self.critic}


def _loss_weights(given: Mapping[str, float]) -> LossWeights:
    try:
        return LossWeights(**given)
    except TypeError:
        known = ", ".join(field.name for field in fields(LossWeights))
        raise ArgumentError(f"weights are {', '.join(given)}; the losses are {known}") from None


def _check(config: GanConfig, crop: int) -> None:
    if config.batch <= config.paired + config.induced:
        raise ArgumentError(
            f"batch is {config.batch}; it must hold more than paired + induced = "
            f"{config.paired + config.induced} crops"
        )
    if config.margin % 8 or not 0 <= config.margin <= crop - 64:
        raise ArgumentError(
            f"margin is {config.margin}; it must be a multiple of 8 in [0, {crop - 64}]"
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

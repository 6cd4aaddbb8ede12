# SPDX-License-Identifier: Apache-2.0
"""Stage `synthesis`: the synthesis alone, on latents as files hold them, hard crops once more.

A trained synthesis is a piecewise linear map, and where it has seen little its pieces can be steep:
a candidate of release 3 showed noise over 64 pixels of one in 32 photographs at two steps of 101.
The linear transform that it starts from never does. So a crop whose decoded picture is somewhere
worse than that of the linear part alone is kept and shown again until it is mended, and the loss
has a term for such places.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from otcuda.codec.integer_context import mean_bits
from otcuda.codec.networks import STRIDE, Codec, quantise_hard, to_planes
from otcuda.training.autoencoder import padded_planes, shown_picture
from otcuda.training.convolution import accelerate, bfloat16_is_fast
from otcuda.training.data import PackedPictures

BLOCK = 32  # pixels: edge of the places that are compared
TOLERANCE = 1.3  # times the error of the linear part
_DRAW = 5  # what makes these crops different from other stages' in the seed


@dataclass(frozen=True)
class SynthesisConfig:
    """Settings of the stage.

    Attributes:
        steps: optimiser steps; the learning rate falls along a cosine over them.
        batch: crops a step.
        again: of them, at most so many that were hard before.
        kept: hard crops that are remembered.
        crop: edge of a crop in pixels, a multiple of 64.
        learning_rate: of Adam.
        filter_rate: the same for the picture filter, which begins as nothing.
        step_range: log2 of the smallest and the largest quantiser step.
        noise: on half of the crops, deviation of what is added to the latents, in steps.
        penalty: weight of the places that are worse than the linear part.
        share: how far the shipped weights go from those before the stage to those after it; the
            picture filter goes all the way.
        judged_at: log2 of the quantiser steps at which a model is judged.
        seed: of everything random.
    """

    steps: int = 2000
    batch: int = 8
    again: int = 3
    kept: int = 48
    crop: int = 256
    learning_rate: float = 2e-4
    filter_rate: float = 2e-3
    step_range: tuple[float, float] = (7.0, 9.7)
    noise: float = 0.06
    penalty: float = 0.3
    share: float = 0.5
    judged_at: tuple[float, ...] = (8.2, 9.0)
    seed: int = 0


def middle_preset() -> SynthesisConfig:
    """For the steps of `otcuda.training.autoencoder.middle_preset`."""
    return SynthesisConfig(step_range=(4.7, 7.8), judged_at=(5.2, 6.4))


def high_preset() -> SynthesisConfig:
    """For the steps of `otcuda.training.autoencoder.high_preset`."""
    return SynthesisConfig(step_range=(3.4, 5.6), judged_at=(3.8, 5.0))


@dataclass
class HardCrops:
    """Crops that were decoded badly, worst first.

    Attributes:
        crops: uint8 [n, 3, size, size].
        log2_step: the steps at which they were, [n].
        badness: how bad they were when last seen, fading, [n].
    """

    crops: Tensor
    log2_step: Tensor
    badness: Tensor

    def add(self, crops: Tensor, log2_step: Tensor, badness: Tensor, most: int) -> HardCrops:
        """With those of a batch that are bad; the worst `most` are kept."""
        new = badness > 0
        whole = [
            torch.cat(pair)
            for pair in (
                (self.crops, crops[new]),
                (self.log2_step, log2_step[new]),
                (0.97 * self.badness, badness[new]),
            )
        ]
        order = torch.argsort(whole[2], descending=True, stable=True)[:most]
        return HardCrops(*(part[order] for part in whole))


class SynthesisStage:
    """See `otcuda.training.loop.Stage`."""

    name = "synthesis"

    def __init__(
        self,
        net: Codec,
        pictures: PackedPictures,
        held_out: list[np.ndarray],
        config: SynthesisConfig,
    ) -> None:
        self.config, self.steps = config, config.steps
        self.net = net.requires_grad_(False).to(memory_format=torch.channels_last)
        self.net.synthesis.requires_grad_(True)
        self._judged = copy.deepcopy(self.net)
        self.average = self._judged.synthesis
        self._bfloat16 = bfloat16_is_fast()
        if not self._bfloat16:
            accelerate(self.net)
        self._pictures, self._held_out = pictures, held_out
        self._means = 2 ** mean_bits(config.step_range[0])
        self._optimiser = _optimiser(self.net.synthesis, config)
        none = torch.zeros(0, 3, config.crop, config.crop, dtype=torch.uint8)
        self.hard = HardCrops(none, torch.zeros(0), torch.zeros(0))

    def advance(self, step: int) -> dict[str, float]:
        """One step on fresh crops and some of the hard ones; `worst` is the largest badness."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + step)
        crops, log2_step = self._batch(step)
        planes = to_planes(crops.float()).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            latents = self._disturbed(self._decoded(planes, log2_step), log2_step)
            shown = self.net.synthesis(latents, log2_step)
        loss, badness = self._loss(planes, shown, latents, log2_step)
        self._update(loss, step)
        self.hard = self.hard.add(crops, log2_step, badness, config.kept)
        return {"loss": loss.item(), "worst": max(0.0, badness.max().item())}

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        config = self.config
        again = min(config.again, len(self.hard.badness))
        fresh = self._pictures.crops(config.batch - again, config.crop, (config.seed, _DRAW, step))
        low, high = config.step_range
        log2_step = low + (high - low) * torch.rand(len(fresh))
        pick = torch.randperm(len(self.hard.badness))[:again]
        near = self.hard.log2_step[pick] + 0.06 * torch.randn(again)
        crops = torch.cat([torch.from_numpy(fresh), self.hard.crops[pick]])
        return crops, torch.cat([log2_step, near.clamp(low, high)])

    @torch.no_grad()
    def _decoded(self, planes: Tensor, log2_step: Tensor) -> Tensor:
        """Latents of a file: rounded, with means as the integers have them."""
        latents = self.net.analysis(planes)
        return self.net.context(latents, log2_step, quantise_hard, self._means)[0]

    def _disturbed(self, latents: Tensor, log2_step: Tensor) -> Tensor:
        """Half of them with noise."""
        chosen = (torch.rand(len(latents), 1, 1, 1) < 0.5).float()
        deviation = self.config.noise * torch.exp2(log2_step)[:, None, None, None]
        return latents + chosen * deviation * torch.randn_like(latents)

    def _loss(
        self, planes: Tensor, shown: Tensor, latents: Tensor, log2_step: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean loss, and how far the worst place of each crop is over what is tolerated, [B]."""
        weight = torch.exp2(2 * log2_step).pow(-0.6)[:, None, None]
        with torch.no_grad():
            linear = F.pixel_shuffle(self.net.synthesis.klt(latents), STRIDE)
            allowed = TOLERANCE * _places((linear - planes).square())
        error = (shown - planes).square()
        excess = weight * (_places(error) - allowed)
        loss = (weight * error.sum(1)).mean() + self.config.penalty * F.relu(excess).mean()
        return loss, excess.detach().amax((1, 2))

    def _update(self, loss: Tensor, step: int) -> None:
        synthesis, config = self.net.synthesis, self.config
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(synthesis.parameters(), 1.0)
        cosine = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for group in self._optimiser.param_groups:
            group["lr"] = group["full"] * min(1.0, (step + 1) / 50) * cosine
        self._optimiser.step()
        keep = min(0.997, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), synthesis.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean PSNR of whole held-out pictures; `score` is the mean over the steps judged at."""
        out = {
            f"psnr_{level}": float(np.mean([self._psnr(p, level) for p in self._held_out]))
            for level in self.config.judged_at
        }
        return {**out, "score": float(np.mean(list(out.values())))}

    def _psnr(self, picture: np.ndarray, level: float) -> float:
        log2_step = torch.full((1,), level)
        latents = self._judged.context(
            self._judged.analysis(padded_planes(picture)), log2_step, quantise_hard, self._means
        )[0]
        shown = shown_picture(self.average(latents, log2_step), picture.shape)
        error = np.square(shown.astype(float) - picture).mean()
        return 10 * math.log10(255**2 / max(error, 1e-9))

    def sample(self, path: Path) -> None:
        """Nothing: pictures look as those of stage `autoencoder`, hard crops apart."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights, their average, the moments of Adam, and the hard crops."""
        tensors = {f"synthesis.{k}": v for k, v in self.net.synthesis.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for n, entry in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{n}.{key}": torch.as_tensor(v) for key, v in entry.items()}
        return tensors | {f"hard.{k}": v for k, v in vars(self.hard).items()}, {}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        load_part(self.net.synthesis, tensors, "synthesis.")
        load_part(self.average, tensors, "average.")
        whole = self._optimiser.state_dict()
        whole["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, number, key = name.split(".")
                whole["state"].setdefault(int(number), {})[key] = tensor
        self._optimiser.load_state_dict(whole)
        self.hard = HardCrops(*(tensors[f"hard.{k}"] for k in ("crops", "log2_step", "badness")))


def _optimiser(synthesis: nn.Module, config: SynthesisConfig) -> torch.optim.Adam:
    """Adam; `full` is the rate of a group before the schedule."""
    parts: dict[bool, list[Tensor]] = {False: [], True: []}
    for name, parameter in synthesis.named_parameters():
        parts[is_of_filter(name)].append(parameter)
    groups = [{"params": parts[False], "full": config.learning_rate}]
    if parts[True]:
        groups.append({"params": parts[True], "full": config.filter_rate})
    return torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def is_of_filter(name: str) -> bool:
    """Whether a parameter of the synthesis belongs to its picture filter."""
    return name.startswith("filter.")


def load_part(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """A module's weights from those whose names start so."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict(found)


def _places(error: Tensor) -> Tensor:
    """Mean over `BLOCK` x `BLOCK` places of squared errors [B, 3, H, W], summed over planes."""
    return F.avg_pool2d(error.sum(1), BLOCK)

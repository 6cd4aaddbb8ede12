# SPDX-License-Identifier: Apache-2.0
"""Stage `autoencoder`: analysis, context model and synthesis, for rate and distortion.

Loss of a picture, with step D drawn log-uniformly: (SSE / pixel + c D^2 bits / pixel) / D^1.2.
The exponent gives every step about the same weight.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from otcuda.codec.networks import (
    Codec,
    quantise_hard,
    quantise_noisy,
    to_planes,
    to_rgb,
)
from otcuda.training.convolution import accelerate, bfloat16_is_fast
from otcuda.training.data import PackedPictures
from otcuda.training.muon import Muon
from otcuda.training.utilisation import PASSES, convolution_peak, products


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings of the stage.

    Attributes:
        steps: optimiser steps; the learning rate falls to a fiftieth along a cosine over them.
        batch: crops a step.
        crop: edge of a crop in pixels, a multiple of 64.
        learning_rate: of Adam; a tenth of it for the linear transforms, ten times for the scales.
        muon_rate: of Muon, which moves the convolutions; 0 leaves them to Adam.
        multiplier: c in lambda = c D^2, a bit.
        step_range: log2 of the smallest and the largest quantiser step trained.
        hard_share: last share of the steps, in which the rounding is hard and the analysis frozen.
        betas: of Adam.
        halve_at: steps at which the rate is halved instead of the cosine; empty for the cosine.
        judged_at: log2 of the quantiser steps at which a model is judged, each with the rate in bpp
            to which its PSNR is corrected.
        slope: of that correction, dB for ten times the rate.
        seed: of everything random.
    """

    steps: int = 20000
    batch: int = 4
    crop: int = 256
    learning_rate: float = 6e-4
    muon_rate: float = 0.02
    multiplier: float = 0.15
    step_range: tuple[float, float] = (7.0, 9.7)
    hard_share: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    halve_at: tuple[int, ...] = ()
    judged_at: tuple[tuple[float, float], ...] = ((8.2, 0.03), (9.0, 0.03))
    slope: float = 6.0
    seed: int = 0


def paper_preset() -> AutoencoderConfig:
    """The paper's: 256 x 256 crops, batch 8, Adam 0.9 / 0.999, 1e-4 halved at 100k and 300k."""
    return AutoencoderConfig(
        steps=400_000,
        batch=8,
        learning_rate=1e-4,
        muon_rate=0.0,
        betas=(0.9, 0.999),
        halve_at=(100_000, 300_000),
    )


def middle_preset() -> AutoencoderConfig:
    """For 0.1 to 0.8 bit a pixel; networks of `otcuda.codec.networks.middle_config`."""
    return AutoencoderConfig(
        batch=8,
        learning_rate=5e-4,
        muon_rate=0.008,
        step_range=(4.7, 7.8),
        judged_at=((5.2, 0.4), (6.4, 0.2)),
        slope=10.0,
    )


def high_preset() -> AutoencoderConfig:
    """For more than that; networks of `otcuda.codec.networks.high_config`."""
    return AutoencoderConfig(
        batch=8,
        learning_rate=5e-4,
        muon_rate=0.008,
        step_range=(3.4, 5.6),
        judged_at=((3.8, 1.2), (5.0, 0.6)),
        slope=10.0,
    )


def schedule(config: AutoencoderConfig, step: int) -> float:
    """Share of the rate at a step: 100 steps of warm-up, then the cosine or the halvings."""
    warm = min(1.0, (step + 1) / 100)
    if config.halve_at:
        return warm * 0.5 ** sum(step >= s for s in config.halve_at)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def rate_distortion(planes: Tensor, decoded: Tensor, bits: Tensor, log2_step: Tensor, c: float):
    """Loss of each picture [B]; see the head of this file."""
    pixels = planes.shape[2] * planes.shape[3]
    distortion = (decoded - planes).square().sum((1, 2, 3)) / pixels
    square = torch.exp2(2 * log2_step)
    return (distortion + c * square * bits / pixels) / square.pow(0.6)


def padded_planes(picture: np.ndarray) -> Tensor:
    """Planes [1, 3, H, W] of a picture, continued to multiples of 64."""
    rgb = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    height, width = rgb.shape[2:]
    planes = to_planes(F.pad(rgb, (0, -width % 64, 0, -height % 64), "replicate"))
    return planes.contiguous(memory_format=torch.channels_last)


def shown_picture(planes: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [H, W, 3] from planes [1, 3, ...], cut to the first two of `shape`."""
    out = to_rgb(planes)[0, :, : shape[0], : shape[1]].clamp(0, 255).round().byte()
    return out.permute(1, 2, 0).numpy()


def training_blocks(pictures: PackedPictures, seed: int, batches: int = 60) -> Tensor:
    """16x16x3 blocks of random crops in planes, [n, 768]."""
    blocks = []
    for k in range(batches):
        planes = to_planes(torch.from_numpy(pictures.crops(8, 128, (seed, 0, k))).float())
        blocks.append(F.pixel_unshuffle(planes, 16).permute(0, 2, 3, 1).reshape(-1, 768))
    return torch.cat(blocks)


class AutoencoderStage:
    """See `otcuda.training.loop.Stage`."""

    name = "autoencoder"

    def __init__(
        self,
        net: Codec,
        pictures: PackedPictures,
        held_out: list[np.ndarray],
        config: AutoencoderConfig,
    ) -> None:
        self.config, self.steps = config, config.steps
        self.net = net.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)
        self._bfloat16 = bfloat16_is_fast()
        if not self._bfloat16:
            accelerate(self.net)
        self._pictures, self._held_out = pictures, held_out
        self._optimisers = _optimisers(self.net, config)

    def advance(self, step: int) -> dict[str, float]:
        """One step on `batch` crops; `utilisation` is the share of the convolution peak."""
        config, start = self.config, time.process_time()
        torch.manual_seed(config.seed * 1_000_003 + step)
        hard = step >= config.steps * (1 - config.hard_share)
        crops = self._pictures.crops(config.batch, config.crop, (config.seed, 1, step))
        planes = to_planes(torch.from_numpy(crops).float())
        planes = planes.contiguous(memory_format=torch.channels_last)
        low, high = config.step_range
        log2_step = low + (high - low) * torch.rand(config.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            with torch.set_grad_enabled(not hard):
                latents = self.net.analysis(planes)
            decoded, bits = self.net.context(
                latents, log2_step, quantise_hard if hard else quantise_noisy
            )
            decoded = self.net.synthesis(decoded, log2_step)
        loss = rate_distortion(planes, decoded, bits, log2_step, config.multiplier).mean()
        self._update(loss, step)
        metrics = {"loss": loss.item(), "bpp": bits.mean().item() / config.crop**2}
        seconds = time.process_time() - start
        count, peak = self._work
        return {**metrics, "utilisation": PASSES * count / (seconds * peak)}

    @functools.cached_property
    def _work(self) -> tuple[int, float]:
        """Products of a batch forwards, and the most of them in a second of this CPU."""
        config = self.config
        planes = torch.zeros(config.batch, 3, config.crop, config.crop)
        log2_step = torch.zeros(config.batch)
        with torch.no_grad():
            count = products(lambda: self.average(planes, log2_step, quantise_hard))
        return count, convolution_peak(torch.bfloat16 if self._bfloat16 else torch.float32)

    def _update(self, loss: Tensor, step: int) -> None:
        self.net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        share = schedule(self.config, step)
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * share
            optimiser.step()
        keep = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss, bpp and PSNR of whole held-out pictures at two steps.

        `score` is PSNR corrected to a common rate along a constant slope: enough to steer by.
        """
        out: dict[str, float] = {}
        scores = []
        for level, rate in self.config.judged_at:
            rows = [self._measure(picture, level) for picture in self._held_out]
            bpp, psnr, loss = np.mean(rows, 0)
            scores.append(psnr - self.config.slope * math.log10(bpp / rate))
            out |= {f"bpp_{level}": bpp, f"psnr_{level}": psnr, f"loss_{level}": loss}
        return {**out, "score": float(np.mean(scores))}

    def _measure(self, picture: np.ndarray, level: float) -> tuple[float, float, float]:
        decoded, bits, loss = self._code(picture, level)
        error = np.square(decoded.astype(float) - picture).mean()
        psnr = 10 * math.log10(255**2 / max(error, 1e-9))
        return bits / (picture.shape[0] * picture.shape[1]), psnr, loss

    @torch.no_grad()
    def _code(self, picture: np.ndarray, level: float) -> tuple[np.ndarray, float, float]:
        planes, log2_step = padded_planes(picture), torch.full((1,), level)
        decoded, bits = self.average(planes, log2_step, quantise_hard)
        loss = rate_distortion(planes, decoded, bits, log2_step, self.config.multiplier)
        return shown_picture(decoded, picture.shape), bits.item(), loss.item()

    def sample(self, path: Path) -> None:
        """The first held-out picture beside its reconstruction."""
        if self._held_out:
            decoded, _, _ = self._code(self._held_out[0], self.config.judged_at[-1][0])
            Image.fromarray(np.concatenate([self._held_out[0], decoded], 1)).save(path)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights, their average and the optimisers' moments."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, optimiser in self._optimisers.items():
            for k, entry in optimiser.state_dict()["state"].items():
                for key, value in entry.items():
                    tensors[f"{name}.{k}.{key}"] = torch.as_tensor(value)
        return tensors, {"threads": torch.get_num_threads()}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.net.load_state_dict(_part(tensors, "net."))
        self.average.load_state_dict(_part(tensors, "average."))
        for name, optimiser in self._optimisers.items():
            whole = optimiser.state_dict()
            whole["state"] = {}
            for entry, tensor in _part(tensors, f"{name}.").items():
                number, key = entry.split(".", 1)
                whole["state"].setdefault(int(number), {})[key] = tensor
            optimiser.load_state_dict(whole)


def _optimisers(net: Codec, config: AutoencoderConfig) -> dict[str, torch.optim.Optimizer]:
    """Muon for the convolutions, Adam for the rest; `full` is a rate before the schedule."""
    linear = [net.analysis.klt.weight, net.synthesis.klt.weight]
    scales = [net.context.phase_scale, net.context.channel_scale]
    taken = {id(p) for p in linear + scales}
    matrices = []
    if config.muon_rate:
        outputs = {id(layer.weight) for layer in net.context.out}
        matrices = [p for p in net.parameters() if p.ndim == 4 and id(p) not in taken | outputs]
        taken |= {id(p) for p in matrices}
    rest = [p for p in net.parameters() if id(p) not in taken]
    rate = config.learning_rate
    groups = [
        {"params": rest, "full": rate},
        {"params": linear, "full": 0.1 * rate},
        {"params": scales, "full": 10 * rate},
    ]
    optimisers: dict[str, torch.optim.Optimizer] = {
        "adam": torch.optim.Adam(groups, lr=rate, betas=config.betas)
    }
    if matrices:
        groups = [{"params": matrices, "full": config.muon_rate}]
        optimisers["muon"] = Muon(groups, lr=config.muon_rate)
    return optimisers


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

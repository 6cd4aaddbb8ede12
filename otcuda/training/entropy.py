# SPDX-License-Identifier: Apache-2.0
"""Stage `entropy`: the context model in integers, fine-tuned as such, and its tables counted.

Analysis and synthesis are frozen. Each step runs the integers of csrc/common/context_net.h in
floating point, exactly, with the gradients that the float model would have. The 64 tables are
counted from the symbols of training crops. What is judged is bytes of the native code.

Loss: for the mean, bits of the residual with additive noise; for the scale, bits of the rounded
symbols that it has to tell apart. (A term for the error of the latents cost bytes and gained none
of that error; noise for both cost 1 % of the bytes at coarse steps.)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from otcuda.codec.integer_context import (
    RADIUS,
    SCALE_LOWEST,
    SCALE_STEPS,
    SCALES,
    STEP_GRID,
    STEP_LOWEST,
    VALUE_BITS,
    Exponents,
    IntegerContext,
    calibrate,
    channel_exponents,
    count_symbols,
    folded_layers,
    integer_arrays,
    integer_centroids,
    log2_step,
    symbol_limit,
    tables_from_counts,
)
from otcuda.codec.networks import (
    ALIGN,
    PHASE_GRIDS,
    PHASES,
    STRIDE,
    Codec,
    ContextModel,
    Grid,
    conv_at,
    laplace_bits,
    spread,
    to_planes,
)
from otcuda.training.data import PackedPictures

ACTIVATION_LIMIT = 127
OUTPUT_LIMIT = 8191
_DRAW = 4  # what makes these crops different from other stages' in the seed


@dataclass(frozen=True)
class EntropyConfig:
    """Settings of the stage.

    Attributes:
        steps: optimiser steps; the learning rate falls to a fiftieth along a cosine over them.
        batch: crops a step.
        crop: edge of a crop in pixels, a multiple of 64.
        learning_rate: of Adam.
        step_range: smallest and largest byte k of the quantiser step, D = 2^(3 + k / 32).
        calibration: crops on which the ranges of the activations are measured.
        counted: crops whose symbols make the tables.
        counted_steps: how many steps of the range they are counted at.
        judged_at: bytes k of the steps at which a model is judged.
        seed: of everything random.
    """

    steps: int = 600
    batch: int = 4
    crop: int = 256
    learning_rate: float = 1e-3
    step_range: tuple[int, int] = (128, 214)
    calibration: int = 64
    counted: int = 128
    counted_steps: int = 6
    judged_at: tuple[int, ...] = (166, 192)
    seed: int = 0


def middle_preset() -> EntropyConfig:
    """For the steps of `otcuda.training.autoencoder.middle_preset`."""
    return EntropyConfig(step_range=(54, 153), judged_at=(70, 109))


def high_preset() -> EntropyConfig:
    """For the steps of `otcuda.training.autoencoder.high_preset`."""
    return EntropyConfig(step_range=(13, 83), judged_at=(26, 64))


class _Exactly(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx, exact, smooth):
        return exact

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient


def exactly(exact: Tensor, smooth: Tensor) -> Tensor:
    """`exact`, to which gradients are blind; they go to `smooth`."""
    return _Exactly.apply(exact.detach(), smooth)


def requantised(v: Tensor, shift: Tensor, slope: int, limit: int) -> Tensor:
    """The act and out of csrc/common/context_net.h on integers that stand in floats."""
    unit = torch.exp2(-shift)[:, None, None]
    leaky = torch.maximum(v, torch.floor(v / 2**slope)) if slope else v
    exact = torch.floor(leaky * unit + 0.5).clamp(-limit, limit)
    smooth = (F.leaky_relu(v, 0.5**slope) if slope else v) * unit
    return exactly(exact, smooth.clamp(-limit, limit))


@dataclass(frozen=True)
class Coded:
    """What the twin says of a batch; arrays [B, M, h, w].

    Attributes:
        symbols: nearest symbols, without gradient.
        mean: of each symbol, in steps, on the grid of the integers.
        value: what the symbols stand for, in steps, without gradient.
        scale_index: which table, 0 to 63.
        log2_scale: of the Laplace law of that table, in steps, with gradient.
    """

    symbols: Tensor
    mean: Tensor
    value: Tensor
    scale_index: Tensor
    log2_scale: Tensor


class IntegerTwin:
    """The integer context model in torch: numbers of the native code, gradients of the float one.

    Sums stay under 2^24, so float32 holds every integer exactly.

    Args:
        model: float model whose parameters are trained.
        exponents: of its activations.
    """

    def __init__(self, model: ContextModel, exponents: Exponents) -> None:
        self.model, self.exponents = model, exponents

    def __call__(self, u: Tensor, k: Tensor) -> Coded:
        """Quantise latents u = y / D, [B, M, h, w], phase by phase; k [B] are the steps' bytes."""
        layers = self._layers()
        whole = [torch.zeros_like(u) for _ in range(5)]
        sums = self._first(layers, u, k)
        for phase, grids in enumerate(PHASE_GRIDS):
            found = []
            for grid in grids:
                here = grid.of(u)
                if here.numel() == 0:
                    continue
                parts = self._positions(layers, self._features(layers, sums, grid), here, k, phase)
                for mine, part in zip(whole, parts, strict=True):
                    grid.of(mine).copy_(part)
                found.append((sixteenths(parts[2]), grid))
            if phase + 1 < PHASES:
                for values, grid in found:
                    sums = self._absorb(layers, sums, values, grid)
        return Coded(*whole)

    def _layers(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Integer weight, bias and shift of each layer."""
        parameters = dict(self.model.named_parameters())
        out = {}
        folded = folded_layers(parameters, self.model.edges, self.exponents)
        for name, (weight, bias, output) in folded.items():
            exponents = channel_exponents(
                weight.detach().cpu().numpy(), bias.detach().cpu().numpy(), output
            )
            unit = torch.exp2(torch.from_numpy(exponents).to(weight))
            weight, bias = weight * unit[:, None, None, None], bias * unit
            shift = torch.from_numpy(exponents - output).to(weight)
            out[name] = (
                exactly(torch.round(weight), weight),
                exactly(torch.round(bias), bias),
                shift,
            )
        return out

    def _first(self, layers: dict, like: Tensor, k: Tensor) -> Tensor:
        """Sums of the first layer where nothing is known: the bias and the plane of the step."""
        weight, bias, _ = layers["near"]
        near, far = weight.chunk(2, 1)
        step = clipped(k - 160.0)[:, None, None, None].expand(-1, 1, *like.shape[2:])
        return F.conv2d(step, near[:, -1:], bias, padding=1) + F.conv2d(
            step, far[:, -1:], padding=4, dilation=4
        )

    def _absorb(self, layers: dict, sums: Tensor, values: Tensor, grid: Grid) -> Tensor:
        """The sums once the values of a grid are known too."""
        first = values[:, : self.model.edges[1]]
        units = [4.0**n for n in range(1, self.model.copies + 1)]
        seen = torch.cat(
            [
                clipped(values),
                *[clipped(torch.floor((first + unit / 2) / unit)) for unit in units],
                torch.full_like(values[:, :1], 16.0),
            ],
            1,
        )
        for kernel, dilation in zip(layers["near"][0].chunk(2, 1), (1, 4), strict=True):
            sums = sums + spread(seen, kernel[:, :-1], dilation, grid, sums)
        return sums

    def _features(self, layers: dict, sums: Tensor, grid: Grid) -> Tensor:
        a = requantised(sums, layers["near"][2], 3, ACTIVATION_LIMIT)
        weight, bias, shift = layers["deep"]
        return requantised(conv_at(a, weight, bias, grid), shift, 3, ACTIVATION_LIMIT)

    def _positions(
        self, layers: dict, features: Tensor, u: Tensor, k: Tensor, phase: int
    ) -> list[Tensor]:
        """The parts of `Coded` at the positions of one grid."""
        parts, seen = [], []
        unit, limit = 2.0**self.exponents.means, symbol_limit(self.exponents.means)
        centroids = torch.zeros(SCALES)
        if self.model.centroids:
            centroids = torch.from_numpy(integer_centroids(self.exponents.means) / unit).float()
        for g, (a, b) in enumerate(itertools.pairwise(self.model.edges)):
            weight, bias, shift = layers[f"mix.{g}"]
            m = F.conv2d(torch.cat([features, *seen], 1), weight, bias)
            m = requantised(m, shift, 3, ACTIVATION_LIMIT)
            weight, bias, shift = layers[f"out.{g}"]
            o = requantised(F.conv2d(m, weight, bias), shift, 0, OUTPUT_LIMIT)
            mean = o[:, : b - a] / unit
            symbols = torch.floor(u[:, a:b] - mean + 0.5).detach().clamp(-limit, limit)
            index, log2_scale = self._scales(o[:, b - a :], k, phase, a, b)
            value = symbols - torch.sign(symbols) * centroids.to(u)[index.long()] + mean.detach()
            seen.append(clipped(sixteenths(value)))
            parts.append((symbols, mean, value, index, log2_scale))
        return [torch.cat(column, 1) for column in zip(*parts, strict=True)]

    def _scales(self, o: Tensor, k: Tensor, phase: int, a: int, b: int) -> tuple[Tensor, Tensor]:
        model, unit = self.model, SCALE_STEPS * 2**VALUE_BITS
        octaves = model.phase_scale[phase, a:b] + model.channel_scale[a:b]
        offset = (octaves - SCALE_LOWEST - STEP_LOWEST) * unit
        offset = exactly(torch.round(offset), offset)[None, :, None, None]
        fine = o + offset - 3 * k[:, None, None, None]  # sixteenths of an index
        index = torch.floor((fine + 8) / 16).clamp(0, SCALES - 1)
        smooth = (fine / 16).clamp(0, SCALES - 1)
        log2_scale = exactly(index, smooth) / SCALE_STEPS + SCALE_LOWEST
        return index.detach(), log2_scale


def sixteenths(value: Tensor) -> Tensor:
    """A value in steps as the network sees it."""
    return torch.floor(16 * value + 0.5)


def clipped(v: Tensor) -> Tensor:
    """int8 as the context model takes it."""
    return v.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


class EntropyStage:
    """See `otcuda.training.loop.Stage`; `arrays()` are the integers for a weights file.

    Args:
        net: trained networks; the context model is trained on, the rest is frozen.
        pictures: training pictures.
        held_out: pictures to judge by, uint8 [H, W, 3].
        config: settings.
    """

    name = "entropy"

    def __init__(
        self,
        net: Codec,
        pictures: PackedPictures,
        held_out: list[np.ndarray],
        config: EntropyConfig,
    ) -> None:
        self.config, self.steps = config, config.steps
        self.net = net.requires_grad_(False).to(memory_format=torch.channels_last)
        self.net.context.requires_grad_(True)
        self._pictures, self._held_out = pictures, held_out
        self._judged: list[np.ndarray] | None = None
        self._counted: list[np.ndarray] | None = None
        self._exponents: Exponents | None = None
        self._arrays: dict[str, np.ndarray] | None = None  # of the weights as they are
        self._optimiser = torch.optim.Adam(
            net.context.parameters(), lr=config.learning_rate, betas=(0.9, 0.98)
        )

    @property
    def exponents(self) -> Exponents:
        """Of the activations, measured once on the float model."""
        if self._exponents is None:
            low, high = self.config.step_range
            batches = []
            for n in range(0, self.config.calibration, self.config.batch):
                latents = self._crops((1, n))
                k = torch.linspace(low, high, len(latents))
                batches.append((latents, STEP_LOWEST + k / STEP_GRID))
            self._exponents = calibrate(self.net.context, batches)
        return self._exponents

    def advance(self, step: int) -> dict[str, float]:
        """One step on `batch` crops."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + step)
        self._arrays = None
        low, high = config.step_range
        k = torch.randint(low, high + 1, (config.batch,)).float()
        latents = self._crops((0, step))
        loss, bits, error = self.losses(latents, k)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.context.parameters(), 1.0)
        warm = min(1.0, (step + 1) / 50)
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for group in self._optimiser.param_groups:
            group["lr"] = config.learning_rate * warm * cosine
        self._optimiser.step()
        return {"loss": loss.item(), "bpp": bits / config.crop**2, "error": error}

    def losses(self, latents: Tensor, k: Tensor) -> tuple[Tensor, float, float]:
        """Loss a position, mean bits a crop, and mean squared error of the latents in steps."""
        step = torch.exp2(STEP_LOWEST + k / STEP_GRID)[:, None, None, None]
        u = latents / step
        coded = IntegerTwin(self.net.context, self.exponents)(u, k)
        scale = torch.exp2(coded.log2_scale)
        noisy = u - coded.mean + torch.rand_like(u) - 0.5
        rate = laplace_bits(noisy, scale.detach()) + laplace_bits(coded.symbols, scale)
        bits = laplace_bits(coded.symbols, scale.detach()).sum((1, 2, 3))
        error = (coded.value - u).square()
        positions = latents.shape[2] * latents.shape[3]
        weight = (step[:, 0, 0, 0] / 2**8.5).pow(0.8)  # every step about as much
        loss = (rate.sum((1, 2, 3)) * weight).mean() / positions
        return loss, bits.mean().item(), error.mean().item()

    def arrays(self) -> dict[str, np.ndarray]:
        """The integer model as it is now, its tables counted."""
        if self._arrays is not None:
            return self._arrays
        arrays = integer_arrays(self.net.context, self.exponents)
        model = IntegerContext(arrays)
        counts = np.zeros((SCALES, RADIUS + 2), np.int64)
        for k in np.linspace(*self.config.step_range, self.config.counted_steps).round():
            for latents in self._counting_latents():
                choice = model.quantise(latents / 2 ** np.float32(log2_step(k)), int(k))
                counts += count_symbols(choice.symbols, choice.scale_index)
        self._arrays = arrays | {"tables": tables_from_counts(counts)}
        return self._arrays

    def validate(self) -> dict[str, float]:
        """Mean bytes of held-out pictures at some steps; `score` is minus their mean."""
        model = IntegerContext(self.arrays())
        out: dict[str, float] = {}
        for k in self.config.judged_at:
            sizes, errors = [], []
            for latents in self._held_out_latents():
                u = latents / 2 ** np.float32(log2_step(k))
                choice = model.quantise(u, k)
                sizes.append(len(model.encode(choice.symbols, k)))
                errors.append(np.square(choice.values * model.unit - u).mean())
            out[f"bytes_{k}"] = float(np.mean(sizes))
            out[f"error_{k}"] = float(np.mean(errors))
        return {**out, "score": -float(np.mean([out[f"bytes_{k}"] for k in self.config.judged_at]))}

    def sample(self, path: Path) -> None:
        """Bits of each position of the first held-out picture, as grey levels."""
        if not self._held_out:
            return
        k = self.config.judged_at[-1]
        u = self._held_out_latents()[0] / 2 ** np.float32(log2_step(k))
        choice = IntegerContext(self.arrays()).quantise(u, k)
        scale = 2.0 ** (torch.from_numpy(choice.scale_index) / SCALE_STEPS + SCALE_LOWEST)
        bits = laplace_bits(torch.from_numpy(choice.symbols).float(), scale).sum(0)
        grey = (bits * (255 / bits.max())).byte().numpy()
        size = (grey.shape[1] * STRIDE, grey.shape[0] * STRIDE)
        Image.fromarray(grey).resize(size, Image.Resampling.NEAREST).save(path)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The float context model, Adam's moments, and the integers as `context.*`."""
        tensors = {f"net.{k}": v for k, v in self.net.context.state_dict().items()}
        for n, entry in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{n}.{key}": torch.as_tensor(v) for key, v in entry.items()}
        named = IntegerContext(self.arrays()).tensors()
        tensors |= {name: torch.from_numpy(a) for name, a in named.items()}
        e = self.exponents
        return tensors, {"exponents": [e.first, e.deep, *e.mix], "means": e.means}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        first, deep, *mix = state["exponents"]
        self._exponents = Exponents(first, deep, tuple(mix), state.get("means", VALUE_BITS))
        self._arrays = None
        weights = {k[4:]: v for k, v in tensors.items() if k.startswith("net.")}
        self.net.context.load_state_dict(weights)
        whole = self._optimiser.state_dict()
        whole["state"] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, number, key = name.split(".")
                whole["state"].setdefault(int(number), {})[key] = tensor
        self._optimiser.load_state_dict(whole)

    @torch.no_grad()
    def _latents(self, rgb: Tensor) -> Tensor:
        planes = to_planes(rgb.float()).contiguous(memory_format=torch.channels_last)
        return self.net.analysis(planes)

    def _crops(self, draw: tuple[int, int]) -> Tensor:
        """Latents of `batch` training crops."""
        config = self.config
        crops = self._pictures.crops(config.batch, config.crop, (config.seed, _DRAW, *draw))
        return self._latents(torch.from_numpy(crops))

    def _counting_latents(self) -> list[np.ndarray]:
        if self._counted is None:
            count, batch = self.config.counted, self.config.batch
            self._counted = [y for n in range(0, count, batch) for y in self._crops((2, n)).numpy()]
        return self._counted

    def _held_out_latents(self) -> list[np.ndarray]:
        if self._judged is None:
            self._judged = []
            for picture in self._held_out:
                rgb = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
                margin = (0, -rgb.shape[3] % ALIGN, 0, -rgb.shape[2] % ALIGN)
                padded = F.pad(rgb.float(), margin, "replicate")
                self._judged.append(self._latents(padded)[0].numpy())
        return self._judged

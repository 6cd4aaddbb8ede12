# SPDX-License-Identifier: Apache-2.0
"""Context models and latents: integers out of SHAKE-256, and a small trained model."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path

import numpy as np
from coding.cases import numbers

from otcuda.coding import Tables

K = 150  # the byte of the step for which the offsets of `random_model` spread the scales
TRAINED = Path(__file__).parent.parent / "golden" / "context_model_v1.safetensors"
TRAINED_SIZES = {"latents": 6, "context_width": 24, "groups": (2, 4)}
TRAINED_LEVELS = (176, 192)  # bytes of the step at which the trained model is judged


def integers(seed: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Integers from low to high, the same in every version of NumPy."""
    flat = numbers(seed, math.prod(shape), high - low + 1)
    return np.array(flat, np.int64).reshape(shape) + low


def spread_tables(precision: int = 14) -> np.ndarray:
    """Tables of every radius, made of integers alone."""
    tables = np.zeros((64, 32), np.uint16)
    for t in range(64):
        R = t // 4
        weights = [1 + (2**24 >> min(24, 8 * ((n + 1) // 2) // (1 + R))) for n in range(2 * R + 1)]
        f = Tables.from_weights([*weights, 2**14], precision, escape=False).frequencies[0]
        tables[t, : 2 * R + 1], tables[t, 31] = f[:-1], f[-1]
    return tables


def random_model(
    seed: str, edges: tuple[int, ...], H: int, copies: int = 1
) -> dict[str, np.ndarray]:
    """Arrays of a model that makes much of its inputs: every clip, shift and scale occurs."""
    M, G = edges[-1], len(edges) - 1
    layers = {"near": (H, M + copies * edges[1] + 2, 3, 5), "deep": (H, H, 3, 6)}
    for g, (a, b) in enumerate(itertools.pairwise(edges)):
        layers[f"mix.{g}"] = (H, H + a, 1, 5)
        layers[f"out.{g}"] = (2 * (b - a), H, 1, 6)
    arrays: dict[str, np.ndarray] = {"edges": np.array(edges, np.int32)}
    for name, (outputs, inputs, side, shift) in layers.items():
        shift += round(math.log2(inputs * side**2) / 2)
        key, shape = f"{seed} {name}", (outputs, inputs, side, side)
        arrays[f"{name}.weight"] = integers(key, shape, -127, 127).astype(np.int8)
        arrays[f"{name}.bias"] = integers(key + "b", (outputs,), -20000, 20000).astype(np.int32)
        arrays[f"{name}.shift"] = integers(key + "s", (outputs,), shift - 1, shift + 1).astype(
            np.uint8
        )
    arrays["near.shift"][0] = 0
    arrays["deep.shift"][-1] = 30
    shape = arrays["near.weight"].shape
    arrays["far.weight"] = integers(f"{seed} far", shape, -128, 127).astype(np.int8)
    for g in range(G):  # means near zero, scales far apart
        n = edges[g + 1] - edges[g]
        arrays[f"out.{g}.shift"][:n] += 1
    arrays["offset"] = integers(f"{seed} o", (5, M), 3 * K - 300, 3 * K + 1300).astype(np.int16)
    arrays["tables"] = spread_tables()
    return arrays


def random_latents(seed: str, shape: tuple[int, ...]) -> np.ndarray:
    """Latents in sixteenths, float32: nearly always under 2, now and then up to 2000."""
    small, rare = integers(seed, shape, -40, 40), integers(seed + "r", shape, 0, 40)
    large = integers(seed + "l", shape, -2000, 2000)
    return (np.where(rare == 0, 16 * large, np.where(rare < 25, small // 16, small)) / 16).astype(
        np.float32
    )


@functools.cache
def small_model() -> dict[str, np.ndarray]:
    """Three groups, widths that fill no vector, an odd number of inputs."""
    return random_model("small", (0, 2, 3, 7), 37)


@functools.cache
def fine_model(mean_bits: int) -> dict[str, np.ndarray]:
    """The small model with finer means, and symbols that stand for less than the middle."""
    most = 2 ** (mean_bits - 1)
    return {
        **small_model(),
        "mean_bits": np.array([mean_bits], np.int32),
        "centroids": integers(f"centroids {mean_bits}", (64,), 0, most).astype(np.int16),
    }


@functools.cache
def structured_latents(seed: int, count: int, size: int):
    """Latents [count, 6, size, size] in orthonormal units: smooth, of an energy that wanders."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    generator = torch.Generator().manual_seed(seed)

    def smooth(radius: int):
        noise = torch.randn(count, 6, size + 16, size + 16, generator=generator)
        wide = F.avg_pool2d(noise, 2 * radius + 1, 1, radius) * (2 * radius + 1)
        return wide[:, :, 8:-8, 8:-8]

    spread = torch.tensor([900.0, 500.0, 400.0, 250.0, 200.0, 150.0])[:, None, None]
    return smooth(1) * torch.exp(1.2 * smooth(3)[:, :1]) * spread


@functools.cache
def trained_model():
    """A ContextModel of 6 channels, trained by train_context_model.py beside this file."""
    from safetensors.torch import load_file

    from otcuda.codec.networks import CodecConfig, ContextModel

    model = ContextModel(CodecConfig(**TRAINED_SIZES))
    model.load_state_dict(load_file(TRAINED))
    return model.eval()


@functools.cache
def trained_arrays() -> dict[str, np.ndarray]:
    """`trained_model` in integers."""
    import torch

    from otcuda.codec.integer_context import log2_step, quantise_network

    level = torch.full((8,), log2_step(184))
    return quantise_network(trained_model(), [(structured_latents(0, 64, 16)[:8], level)])

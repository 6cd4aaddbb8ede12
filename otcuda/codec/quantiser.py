# SPDX-License-Identifier: Apache-2.0
"""One quantiser, four height rules.

A quantiser of vectors is a power diagram: `index(x) = argmax_i <x, y_i> + h_i`. What the heights
are is a choice:

| rule | heights h_i | which cells |
|---|---|---|
| nearest | -|y_i|^2 / 2 | Voronoi cells: least distortion |
| balanced | maximise the dual of semi-discrete OT | equal mass: fixed-length codes lose nothing |
| ecvq | -|y_i|^2 / 2 - lambda / 2 len_i | least distortion + lambda rate, lengths of the masses |
| conditional | the same, len_i from the context model | RDOQ: each symbol has lengths of its own |

The first three act on codebooks, here; the last acts on the integer grid of every latent channel,
inside the context model (csrc/common/context_net.h).

Source: Chou, Lookabaugh & Gray, Entropy-constrained vector quantization, 1989. Balanced heights:
An et al., AE-OT, ICLR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otcuda._ops import cell_mass
from otcuda._power import power_argmax
from otcuda.errors import ArgumentError, check_shapes


def step_size(step: int) -> np.float32:
    """The quantiser step D = 2^(3 + step/32) in orthonormal units."""
    return np.float32(2.0 ** (3 + step / 32))


def dequantised(values: np.ndarray, step: int, unit: float) -> np.ndarray:
    """Latents from integers in units of `unit` steps, a power of two."""
    return values.astype(np.float32) * (step_size(step) * np.float32(unit))


def latent_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of latents of a picture (height, width): whole tiles of 64 pixels."""
    height, width = shape
    return -(-height // 64) * 4, -(-width // 64) * 4


def nearest_heights(y: np.ndarray) -> np.ndarray:
    """Heights whose cells are Voronoi cells, [N]: -|y|^2 / 2, for y [N, D]."""
    return -0.5 * np.square(y).sum(1)


def ecvq_heights(y: np.ndarray, lengths: np.ndarray, multiplier: float) -> np.ndarray:
    """Heights that minimise |x - y_i|^2 + lambda len_i, [N].

    |x - y|^2 = |x|^2 - 2 (<x, y> - |y|^2 / 2), so lambda enters by half.

    Args:
        y: codes, [N, D].
        lengths: bits of each code, [N].
        multiplier: lambda, squared error a bit.
    """
    check_shapes("ecvq_heights", y=(y, "N D"), lengths=(lengths, "N"))
    return nearest_heights(y) - 0.5 * multiplier * lengths


def balanced_heights(y: np.ndarray, samples: np.ndarray, *, seed: int = 0, **fit) -> np.ndarray:
    """Heights that give every code the same share of the samples, [N].

    Args:
        y: codes, [N, D].
        samples: what is to be quantised, [B, D].
        seed: of the solver.
        fit: passed to `SemiDiscreteOT.fit`.
    """
    from otcuda.transport import SemiDiscreteOT

    ot = SemiDiscreteOT(np.ascontiguousarray(y), source=np.ascontiguousarray(samples))
    ot.fit(seed=seed, **fit)
    return np.asarray(ot.heights)


@dataclass(frozen=True)
class EcvqResult:
    """A rate-optimal codebook: codes [K, D] that are used, lengths [K] in bits, heights [K]."""

    y: np.ndarray
    lengths: np.ndarray
    heights: np.ndarray


def fit_ecvq(
    samples: np.ndarray, y: np.ndarray, multiplier: float, iterations: int = 50
) -> EcvqResult:
    """Alternate masses -> lengths -> heights -> centroids; codes that die are pruned.

    At the fixed point the heights are those of the OT map onto the cells' own masses.

    Args:
        samples: [B, D], float32.
        y: codes to start from, [K, D], float32.
        multiplier: lambda, squared error a bit.
        iterations: at most so many; fewer when no index changes.

    Raises:
        ArgumentError: the multiplier is negative.
    """
    check_shapes("fit_ecvq", samples=(samples, "B D"), y=(y, "K D"))
    if not multiplier >= 0:
        raise ArgumentError(f"multiplier is {multiplier}; it must be at least 0")
    samples = np.ascontiguousarray(samples, np.float32)
    y = np.ascontiguousarray(y, np.float32)
    lengths = np.zeros(len(y))
    before = None
    for _ in range(iterations):
        heights = ecvq_heights(y, lengths, multiplier).astype(np.float32)
        _, index = power_argmax(samples, y, heights)
        counts = cell_mass(index, len(y))
        alive = counts > 0
        if before is not None and alive.all() and np.array_equal(index, before):
            break
        sums = np.zeros_like(y, np.float64)
        np.add.at(sums, index, samples)
        y = (sums[alive] / counts[alive, None]).astype(np.float32)
        lengths = -np.log2(counts[alive] / len(samples))
        before = index if alive.all() else None
    return EcvqResult(y, lengths, ecvq_heights(y, lengths, multiplier).astype(np.float32))

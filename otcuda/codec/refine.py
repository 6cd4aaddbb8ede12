# SPDX-License-Identifier: Apache-2.0
"""Encoder effort 2: latents moved along the decoder's gradient, quantised by conditional heights.

Minimises SSE + lambda bits by proximal steps: u <- u_hat - rate * d SSE / d u_hat, then the
conditional power diagram, which is the proximal map of the code lengths. The rate is halved where a
step does not lower the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from otcuda.codec.pictures_torch import padded_planes
from otcuda.codec.quantiser import dequantised, step_size

ROUNDS = 14
FINER = 2  # indices by which the step is finer than the plain encoder's
START_MULTIPLIER = 0.05
START_RATE = 0.25  # half the inverse curvature of an orthonormal decoder


def refine(
    task: Any, step: int, budget: int, say: Callable[[str, float], None]
) -> tuple[float, bytes]:
    """Best (mean squared error, file) found within the budget.

    Args:
        task: the picture, its model and latents.
        step: index of the plain encoder's quantiser step.
        budget: bytes of the file.
        say: takes (what is being done, share done).
    """
    index = max(0, step - FINER)
    size = float(step_size(index))
    planes = padded_planes(task.image)
    net = task.model.net.synthesis
    log2_step = torch.full((1,), 3 + index / 32)
    u = task.latents / size
    multiplier, rate = START_MULTIPLIER, START_RATE
    best, last = (float("inf"), b""), float("inf")
    kept, direction = u, np.zeros_like(u)
    for k in range(ROUNDS):
        say("refinement", k / ROUNDS)
        quantised = task.model.context.quantise(u, index, multiplier, task.off)
        latents = torch.from_numpy(dequantised(quantised.values16, index))[None].requires_grad_()
        with torch.enable_grad():
            sse = (net(latents, log2_step) - planes).square().sum()
        cost = sse.item() / size**2 + multiplier * quantised.bits
        best = _better(best, task, index, quantised, budget)
        if cost < last * 1.002:
            (gradient,) = torch.autograd.grad(sse, latents)
            kept = 0.5 * u + 0.5 * quantised.values16 / np.float32(16)
            direction = gradient[0].numpy() / size
            last = cost
        else:
            rate *= 0.5
        u = (kept - 0.5 * rate * 2 * direction).astype(np.float32)
        excess = np.clip(quantised.bits / (8 * budget) - 0.995, -0.2, 0.2)
        if abs(excess) > 0.005:
            multiplier = float(np.clip(multiplier * np.exp(1.5 * excess), 0.005, 0.5))
            last *= 1.01
    return best


def _better(best, task, index: int, quantised: Any, budget: int) -> tuple[float, bytes]:
    if quantised.bits > 8 * budget:
        return best
    error = task.error(index, quantised.values16)
    if error >= best[0]:
        return best
    blob = task.file(index, quantised.symbols)
    return (error, blob) if len(blob) <= budget else best

# SPDX-License-Identifier: Apache-2.0
"""How much of what the CPU can do in convolutions a training step uses."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

PASSES = 3  # the layer and the gradients of its input and of its weights, each as many products


def products(run: Callable[[], object]) -> int:
    """Products of all convolutions and matrices while `run()` is called."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2  # it counts the additions too


@torch.no_grad()
def convolution_peak(dtype: torch.dtype, rounds: int = 5) -> float:
    """Most products a CPU second of torch's own 3 x 3 convolution at a size that suits it."""
    x = torch.randn(4, 192, 64, 64, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(192, 192, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
    F.conv2d(x, weight, padding=1)
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        F.conv2d(x, weight, padding=1)
        best = min(best, time.process_time() - start)
    return x.numel() * 192 * 9 / best

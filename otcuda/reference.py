# SPDX-License-Identifier: Apache-2.0
"""Every op in plain torch: what it means. Slow on purpose; the tests hold the kernels to it."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_mass(index: Tensor, N: int, weights: Tensor | None = None) -> Tensor:
    """Number of samples in each cell, or the sum of their weights, [N]; index -1 is left out."""
    kept = index >= 0
    if weights is None:
        return torch.bincount(index[kept], minlength=N)
    sums = torch.zeros(N, dtype=torch.float64, device=index.device)
    return sums.index_add(0, index[kept], weights[kept].double()).to(weights.dtype)


def power_argmax(x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Largest `<x_b, y_i> + h_i` and the lowest i that has it; NaN scores lose.

    The sum has an order of its own (matmul's), so bits agree only where arithmetic is exact.
    """
    scores = x @ y.T + h
    beaten = scores.isnan()
    value, index = torch.where(beaten, -torch.inf, scores).max(1)
    lowest = (torch.where(beaten, -torch.inf, scores) == value[:, None]) & ~beaten
    index = lowest.to(torch.int8).argmax(1)
    none = beaten.all(1)
    return torch.where(none, torch.nan, value), torch.where(none, -1, index)

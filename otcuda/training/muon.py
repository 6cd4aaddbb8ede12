# SPDX-License-Identifier: Apache-2.0
"""Muon: momentum whose matrices are replaced by the nearest orthogonal ones, for convolutions too.

Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. Here the
Newton-Schulz iteration runs on the small Gram matrix alone: two fifths of the usual cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # the published quintic: fast, singular values end within 0.7 to 1.2
ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of `matrix` and singular values near one, [m, n]."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    gram = x @ x.T
    eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
    factor = eye
    for k in range(ITERATIONS):
        # X' = P X with P a polynomial of X X': they commute, only small matrices are multiplied.
        polynomial = a * eye + b * gram + c * (gram @ gram)
        factor = polynomial @ factor if k else polynomial
        if k + 1 < ITERATIONS:
            gram = polynomial @ gram @ polynomial
    x = factor @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for weights of two or more dimensions, flattened to [outputs, rest].

    Args:
        parameters: weights.
        lr: length of a step as a spectral norm.
        momentum: of the gradient average (Nesterov form).
    """

    def __init__(self, parameters, lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """Apply one step to every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(average, group["momentum"])
                update = orthogonalised(ahead.reshape(len(p), -1))
                # Wide outputs get the norm of a square matrix.
                stretch = max(1.0, len(p) / update.shape[1]) ** 0.5
                p.add_(update.view_as(p), alpha=-group["lr"] * stretch)

# SPDX-License-Identifier: Apache-2.0
"""The context model as its definition says it: whole planes, every phase, masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from otcuda.codec.networks import FEATURE_LIMIT, SLOPE, step_plane


def phase_masks(height, width):
    """[1, 1, H, W] for each phase: 1/16, 1/16, 1/8, 1/4, 1/2 of the positions."""
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    a, b = i % 4, j % 4
    phases = [
        (a == 0) & (b == 0),
        (a == 2) & (b == 2),
        ((a == 0) & (b == 2)) | ((a == 2) & (b == 0)),
        (a % 2 == 1) & (b % 2 == 1),
        (i + j) % 2 == 1,
    ]
    return [phase[None, None] for phase in phases]


def dense_features(model, known, seen, log2_step):
    """Features of every position; `known` [B, M, h, w] is zero where `seen` [B, 1, h, w] is."""

    def clip(value):
        return value.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)

    first = known[:, : model.edges[1]]
    copies = [clip(first / 4 ** (n + 1)) for n in range(model.copies)]
    step = clip(step_plane(known, log2_step))
    planes = torch.cat([clip(known), *copies, seen, step], 1)
    t = F.leaky_relu(model.near(planes) + model.far(planes), SLOPE)
    return F.leaky_relu(model.deep(t), SLOPE)


def dense_parameters(model, known, log2_step):
    """Means and log2 scales, in steps, of every symbol, given all values in steps [B, M, h, w]."""
    seen = torch.zeros_like(known[:, :1])
    means, scales = torch.zeros_like(known), torch.zeros_like(known)
    for phase, mask in enumerate(phase_masks(*known.shape[2:])):
        features = dense_features(model, known * seen, seen, log2_step)
        values, mu, scale = [], [], []
        for g, (a, b) in enumerate(zip(model.edges[:-1], model.edges[1:], strict=True)):
            parts = model.parameters_of_group(features, values, log2_step, phase, g)
            mu.append(parts[0])
            scale.append(parts[1])
            values.append(known[:, a:b])
        means = means + mask * torch.cat(mu, 1)
        scales = scales + mask * torch.cat(scale, 1)
        seen = seen + mask
    return means, scales

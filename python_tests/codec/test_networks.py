# SPDX-License-Identifier: Apache-2.0
"""The networks in torch: what the context model adds up from phase to phase, and its definition."""

from __future__ import annotations

import pytest
import torch
from codec.dense_context import dense_parameters, phase_masks

from otcuda.codec.networks import (
    PHASE_GRIDS,
    SCALE_HIGH,
    SCALE_LOW,
    CodecConfig,
    ContextModel,
    Grid,
    conv_at,
    laplace_bits,
    quantise_hard,
    spread,
)

SIZES = CodecConfig(latents=9, context_width=12, groups=(2, 5), coarse_copies=2)


@pytest.fixture
def model(rng):
    out = ContextModel(SIZES)
    for parameter in out.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=rng)
    return out


@pytest.mark.parametrize("size", [(8, 12), (13, 11), (4, 4), (1, 1), (2, 9)])
def test_grids_of_the_phases_hold_every_position_once(size):
    for mask, grids in zip(phase_masks(*size), PHASE_GRIDS, strict=True):
        found = torch.zeros(1, 1, *size)
        for grid in grids:
            grid.of(found).add_(1)
        torch.testing.assert_close(found, mask.float())


@pytest.mark.parametrize("dilation", [1, 4])
@pytest.mark.parametrize("grid", [grid for grids in PHASE_GRIDS for grid in grids], ids=str)
def test_sparse_convolutions_are_the_dense_ones(grid, dilation, rng):
    for size in ((9, 14), (4, 4), (2, 3)):
        kernel = torch.randn(5, 3, 3, 3, generator=rng)
        planes = torch.zeros(2, 3, *size)
        values = torch.randn(grid.of(planes).shape, generator=rng)
        if values.numel() == 0:
            continue
        grid.of(planes).copy_(values)
        dense = torch.nn.functional.conv2d(planes, kernel, padding=dilation, dilation=dilation)
        torch.testing.assert_close(spread(values, kernel, dilation, grid, planes), dense)


@pytest.mark.parametrize("grid", [Grid(0, 0, 4), Grid(2, 0, 4), Grid(1, 0, 2)], ids=str)
def test_a_convolution_at_a_grid_is_part_of_the_whole(grid, rng):
    kernel, bias = torch.randn(5, 3, 3, 3, generator=rng), torch.randn(5, generator=rng)
    planes = torch.randn(2, 3, 9, 14, generator=rng)
    whole = torch.nn.functional.conv2d(planes, kernel, bias, padding=1)
    torch.testing.assert_close(conv_at(planes, kernel, bias, grid), grid.of(whole))


@pytest.mark.parametrize("size", [(8, 12), (13, 11), (1, 1)])
def test_the_context_model_is_its_definition(model, size, rng):
    latents = 300 * torch.randn(2, SIZES.latents, *size, generator=rng)
    log2_step = torch.tensor([6.5, 8.0])
    decoded, bits = model(latents, log2_step, quantise_hard)
    step = torch.exp2(log2_step)[:, None, None, None]
    means, scales = dense_parameters(model, decoded / step, log2_step)
    symbols = torch.round(latents / step - means)
    torch.testing.assert_close(decoded, (symbols + means) * step, rtol=1e-4, atol=1e-2)
    scale = torch.exp2(scales.clamp(SCALE_LOW, SCALE_HIGH))
    torch.testing.assert_close(bits, laplace_bits(symbols, scale).sum((1, 2, 3)), rtol=1e-4, atol=0)

# SPDX-License-Identifier: Apache-2.0
"""Convolutions 3 x 3 on the CPU by the project's own kernels: two to three times torch's speed.

Winograd's F(4 x 4, 3 x 3) for the layer and both of its gradients (csrc/common/conv3.h). Rounding
differs from torch's in the last bits; the numbers do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from otcuda import _nets

TILE = 4  # heights and widths are multiples of it
BLOCK = 16  # channels are padded to multiples of it
FEWEST = 32  # channels: with less, padding and transforms cost more than they save


@functools.cache
def bfloat16_is_fast() -> bool:
    """Whether this CPU multiplies bfloat16 itself: torch is then faster than our float32.

    Elsewhere torch widens every number and is five times slower.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def accelerate(net: nn.Module) -> nn.Module:
    """Let every 3 x 3 convolution of a network at stride 1 run here, in place.

    Weights and their names stay as they are. Inputs that do not fit (another device or dtype, edges
    that are no multiples of 4 times the dilation) go to torch as before.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and _is_ours(layer):
            layer.forward = functools.partial(_forward, layer)
    return net


def _is_ours(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and min(layer.in_channels, layer.out_channels) >= FEWEST
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding == layer.dilation
        and layer.padding_mode == "zeros"
    )


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    period = TILE * layer.dilation[0]
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4 and x.numel() > 0
    if not fits or x.shape[2] % period or x.shape[3] % period:
        return nn.Conv2d.forward(layer, x)
    return convolution(x, layer.weight, layer.bias, layer.dilation[0])


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """`F.conv2d` with a 3 x 3 kernel, stride 1 and zero padding; differentiable once.

    Args:
        x: [B, C, H, W], float32; H and W multiples of 4 times the dilation.
        weight: [O, C, 3, 3].
        bias: [O], or None.
        dilation: distance of the taps, the same in both directions.
    """
    outputs, inputs = weight.shape[:2]
    more_in, more_out = -inputs % BLOCK, -outputs % BLOCK
    x = x.permute(0, 2, 3, 1)
    if more_in:
        x = F.pad(x, (0, more_in))
    if more_in or more_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
    if bias is None:
        bias = x.new_zeros(outputs)
    if more_out:
        bias = F.pad(bias, (0, more_out))
    if dilation > 1:
        x = _split(x, dilation)
    y = _Convolution.apply(x, weight, bias)
    if dilation > 1:
        y = _join(y, dilation)
    return y[..., :outputs].permute(0, 3, 1, 2)


def _split(x: Tensor, d: int) -> Tensor:
    """[B, H, W, C] to its d x d pictures of every d-th pixel, in which the taps are neighbours."""
    B, H, W, C = x.shape
    parts = x.reshape(B, H // d, d, W // d, d, C).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(B * d * d, H // d, W // d, C)


def _join(y: Tensor, d: int) -> Tensor:
    """Inverse of `_split`."""
    n, h, w, O = y.shape  # noqa: E741
    parts = y.reshape(n // (d * d), d, d, h, w, O).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(n // (d * d), h * d, w * d, O)


class _Convolution(torch.autograd.Function):
    """x [n, h, w, C], weight [O, C, 3, 3], bias [O] -> [n, h, w, O]."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        taps = weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], weight.shape[0])
        return torch.from_numpy(
            _nets.conv3(_array(x), _array(taps.contiguous()), _array(bias.contiguous()))
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        outputs, inputs = weight.shape[:2]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            taps = weight.permute(2, 3, 0, 1).reshape(9, outputs, inputs).contiguous()
            zeros = torch.zeros(inputs)
            of_x = torch.from_numpy(
                _nets.conv3(_array(gradient), _array(taps), _array(zeros), turned=True)
            )
        if ctx.needs_input_grad[1]:
            taps = torch.from_numpy(_nets.conv3_kernel_gradient(_array(x), _array(gradient)))
            of_weight = taps.reshape(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 1, 2))
        return of_x, of_weight, of_bias


def _array(tensor: Tensor):
    return tensor.detach().numpy()

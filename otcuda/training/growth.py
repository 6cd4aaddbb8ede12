# SPDX-License-Identifier: Apache-2.0
"""Weights of a smaller codec taken over by a larger one that computes the same, to train it on.

New residual blocks add nothing (their second convolution is zero), and no old channel hears a new
one of the context model; the new ones start as they would in a new network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from otcuda.codec.networks import Codec, CodecConfig, ResidualBlock
from otcuda.errors import BackendError


def check_growth(small: CodecConfig, large: CodecConfig) -> None:
    """Check that `large` can take over the weights of `small`.

    Raises:
        BackendError: a width other than the context model's differs, or `large` has fewer blocks.
    """
    same = ("latents", "width8", "width16", "groups", "coarse_copies")
    blocks = zip(
        small.analysis_blocks + small.synthesis_blocks,
        large.analysis_blocks + large.synthesis_blocks,
        strict=True,
    )
    fits = all(getattr(small, name) == getattr(large, name) for name in same)
    if not (fits and small.context_width <= large.context_width and all(a <= b for a, b in blocks)):
        raise BackendError(f"weights of {small} do not fit into networks of {large}")


@torch.no_grad()
def take_over(net: Codec, small: CodecConfig, tensors: dict[str, Tensor]) -> None:
    """Set the weights of `net` so that it computes what the smaller codec does.

    Args:
        net: newly made.
        small: sizes of the codec that the weights are of.
        tensors: its state, `Codec(small).state_dict()`.

    Raises:
        BackendError: the sizes do not fit; see `check_growth`.
    """
    check_growth(small, net.config)
    old = Codec(small)
    old.load_state_dict(tensors)
    for mine, theirs in (
        (net.analysis.net, old.analysis.net),
        (net.synthesis.coarse, old.synthesis.coarse),
        (net.synthesis.fine, old.synthesis.fine),
    ):
        _copy_sequence(mine, theirs)
    net.analysis.klt.load_state_dict(old.analysis.klt.state_dict())
    net.synthesis.klt.load_state_dict(old.synthesis.klt.state_dict())
    _copy_context(net, old)


def _copy_sequence(mine: nn.Sequential, theirs: nn.Sequential) -> None:
    """Layer by layer; where only `mine` has another residual block, it stays as it started."""
    layers = list(theirs)
    for layer in mine:
        if isinstance(layer, ResidualBlock) and not isinstance(layers[0], ResidualBlock):
            continue
        layer.load_state_dict(layers.pop(0).state_dict())


def _copy_context(net: Codec, old: Codec) -> None:
    """Old outputs keep their weights on old inputs and get zero on new ones."""
    width, before = net.config.context_width, old.config.context_width
    state = net.context.state_dict()
    for name, value in old.context.state_dict().items():
        target = state[name]
        if value.shape == target.shape:
            target.copy_(value)
            continue
        rows = len(value)
        target[:rows] = 0
        if value.ndim == 1:
            target[:rows] = value
        elif name.startswith("mix"):  # features, then the groups before this one
            target[:rows, :before] = value[:, :before]
            target[:rows, width:] = value[:, before:]
        else:
            target[:rows, : value.shape[1]] = value

# SPDX-License-Identifier: Apache-2.0
"""Weights of a smaller codec taken over by a larger one that computes the same, to train it on.

New residual blocks add nothing (their second convolution is zero), a new picture filter adds
nothing (its last layer is zero), no old channel hears a new one of the context model, and the new
ones start as they would in a new network. New latents form groups of their own behind the old ones
and hold what the old ones leave of a block, by the Karhunen-Loeve transform of that rest; only the
linear transforms know them at first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from otcuda.codec.networks import (
    STEP_CENTRE,
    Codec,
    CodecConfig,
    ContextModel,
    ResidualBlock,
    fitted_log2_scale,
)
from otcuda.errors import BackendError

OUTSIDE = 0.25  # slope of the synthesis' plane of the step beyond the steps of the old training


def check_growth(small: CodecConfig, large: CodecConfig) -> None:
    """Check that `large` can take over the weights of `small`.

    Raises:
        BackendError: a width other than the context model's differs, `large` has fewer blocks or
            another picture filter, or its groups are not those of `small` and further ones.
    """
    blocks = zip(
        small.analysis_blocks + small.synthesis_blocks,
        large.analysis_blocks + large.synthesis_blocks,
        strict=True,
    )
    before, after = (*small.groups, small.latents), (*large.groups, large.latents)
    fits = all(getattr(small, name) == getattr(large, name) for name in ("width8", "width16"))
    fits &= before == after[: len(before)] and all(a <= b for a, b in blocks)
    fits &= small.context_width <= large.context_width
    filters = [(c.filter_width, c.filter_blocks) for c in (small, large)]
    fits &= small.filter_width == 0 or filters[0] == filters[1]
    if not (fits and small.coarse_copies <= large.coarse_copies):
        raise BackendError(f"weights of {small} do not fit into networks of {large}")


@torch.no_grad()
def take_over(
    net: Codec,
    small: CodecConfig,
    tensors: dict[str, Tensor],
    blocks: Tensor | None = None,
    log2_step: float = 7.0,
) -> None:
    """Set the weights of `net` so that it computes what the smaller codec does.

    With more latents it does so where those beyond the old ones are zero; the plane of the step
    that the synthesis sees is flattened below `log2_step`, where the old one was not trained.

    Args:
        net: newly made.
        small: sizes of the codec that the weights are of.
        tensors: its state, `Codec(small).state_dict()`.
        blocks: unshuffled planes of training pictures, [n, 768], for the new latents.
        log2_step: finest step that the small codec was trained for.

    Raises:
        BackendError: the sizes do not fit; see `check_growth`.
    """
    check_growth(small, net.config)
    old = Codec(small)
    old.load_state_dict(tensors)
    _grow_latents(old, net.config.latents - small.latents, blocks, log2_step)
    for mine, theirs in (
        (net.analysis.net, old.analysis.net),
        (net.synthesis.coarse, old.synthesis.coarse),
        (net.synthesis.fine, old.synthesis.fine),
    ):
        _copy_sequence(mine, theirs)
    net.analysis.klt.load_state_dict(old.analysis.klt.state_dict())
    net.synthesis.klt.load_state_dict(old.synthesis.klt.state_dict())
    if old.synthesis.filter is not None:
        net.synthesis.filter.load_state_dict(old.synthesis.filter.state_dict())
    _copy_context(net.context, old.context)


def _grow_latents(codec: Codec, more: int, blocks: Tensor | None, log2_step: float) -> None:
    """Analysis and synthesis of a codec with further latents, in place; the context as it was."""
    if more == 0:
        return
    if blocks is None:
        raise BackendError("new latents need blocks of training pictures")
    analysis, synthesis = (
        codec.analysis.klt.weight[:, :, 0, 0],
        codec.synthesis.klt.weight[:, :, 0, 0],
    )
    rest = blocks - blocks @ (synthesis @ analysis).T
    vectors = torch.linalg.eigh(rest.T.double() @ rest.double())[1]
    basis = vectors.flip(1)[:, :more].float()  # [768, more], most energy first
    rows = basis.T - basis.T @ synthesis @ analysis
    scales = fitted_log2_scale(rest @ basis, log2_step)
    codec.analysis.klt.weight = _stacked(codec.analysis.klt.weight, rows[:, :, None, None], 0)
    codec.synthesis.klt.weight = _stacked(codec.synthesis.klt.weight, basis[:, :, None, None], 1)
    context = codec.context
    context.channel_scale = _stacked(context.channel_scale, scales, 0)
    none = torch.zeros(len(context.phase_scale), more)
    context.phase_scale = _stacked(context.phase_scale, none, 1)

    last = codec.analysis.net[-1]
    last.weight = _stacked(last.weight, last.weight.new_zeros(more, *last.weight.shape[1:]), 0)
    last.bias = _stacked(last.bias, torch.zeros(more), 0)
    first = codec.synthesis.coarse[0]
    none = first.weight.new_zeros(len(first.weight), more, 3, 3)
    step = first.weight[:, -1:]
    # At the finest old step the plane says what it said; away from it less than it would.
    first.bias += (1 - OUTSIDE) * 2 * (log2_step - STEP_CENTRE) * step.sum((1, 2, 3))
    first.weight = nn.Parameter(torch.cat([first.weight[:, :-1], none, OUTSIDE * step], 1))


def _stacked(weight: Tensor, more: Tensor, axis: int) -> nn.Parameter:
    return nn.Parameter(torch.cat([weight, more], axis))


def _copy_sequence(mine: nn.Sequential, theirs: nn.Sequential) -> None:
    """Layer by layer; where only `mine` has another residual block, it stays as it started."""
    layers = list(theirs)
    for layer in mine:
        if isinstance(layer, ResidualBlock) and not isinstance(layers[0], ResidualBlock):
            continue
        layer.load_state_dict(layers.pop(0).state_dict())


def _copy_context(mine: ContextModel, old: ContextModel) -> None:
    """Old outputs keep their weights on old inputs and get zero on new ones."""
    width, before = len(mine.deep.bias), len(old.deep.bias)
    latents, copied = old.edges[-1], old.copies * old.edges[1]
    behind = mine.edges[-1]  # where the copies of the first group begin
    state = mine.state_dict()
    for name, value in old.state_dict().items():
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
        elif name in ("near.weight", "far.weight"):
            target[:rows, :latents] = value[:, :latents]
            target[:rows, behind : behind + copied] = value[:, latents : latents + copied]
            target[:rows, -2:] = value[:, -2:]
        else:
            target[:rows, : value.shape[1]] = value

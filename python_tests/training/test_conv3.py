# SPDX-License-Identifier: Apache-2.0
"""Winograd convolutions for training: values and gradients are those of torch in double."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from otcuda._ops import native
from otcuda.errors import Error
from otcuda.training.convolution import accelerate, convolution

# batch, inputs, outputs, height, width, dilation
SHAPES = [
    (1, 16, 16, 4, 4, 1),
    (2, 32, 48, 8, 12, 1),
    (1, 7, 5, 8, 4, 1),
    (3, 72, 96, 16, 16, 1),
    (2, 18, 16, 16, 32, 4),
    (1, 192, 64, 4, 20, 1),
]


def tensors(shape):
    batch, inputs, outputs, height, width, _ = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = [(batch, inputs, height, width), (outputs, inputs, 3, 3), (outputs,)]
    out = [torch.randn(size, generator=generator) for size in sizes]
    probe = torch.randn((batch, outputs, height, width), generator=generator)
    return [t.requires_grad_() for t in out], probe


def gradients(function, leaves, probe):
    y = function(*leaves)
    return y, torch.autograd.grad((y * probe).sum(), leaves)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_torch(shape, simd_level):
    dilation = shape[-1]
    leaves, probe = tensors(shape)
    y, got = gradients(lambda x, w, b: convolution(x, w, b, dilation), leaves, probe)
    double = [t.detach().double().requires_grad_() for t in leaves]
    exact, wanted = gradients(
        lambda x, w, b: F.conv2d(x, w, b, 1, dilation, dilation), double, probe.double()
    )
    for ours, theirs in zip((y, *got), (exact, *wanted), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() < 3e-6 * theirs.norm()


def test_bits_do_not_depend_on_threads_or_level():
    leaves, probe = tensors(SHAPES[3])
    seen = set()
    try:
        for level in native.simd_levels():
            for threads in (1, 2, 3):
                native.set_simd_level(level)
                native.set_num_threads(threads)
                y, got = gradients(convolution, leaves, probe)
                seen.add(tuple(t.detach().numpy().tobytes() for t in (y, *got[:2])))
    finally:
        native.set_simd_level("auto")
        native.set_num_threads(0)
    assert len(seen) == 1


def test_accelerate_changes_the_path_and_not_the_network(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(40, 32, 3, 1, 1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(32, 32, 3, 2, 1),
        nn.Conv2d(32, 48, 3, padding=4, dilation=4, bias=False),
        nn.Conv2d(48, 3, 3, 1, 1),
    )
    x, odd = torch.randn(2, 40, 32, 32), torch.randn(1, 40, 10, 14)
    plain, plain_odd, names = net(x), net(odd), list(net.state_dict())
    calls = []
    from otcuda import _nets

    original = _nets.conv3
    monkeypatch.setattr(_nets, "conv3", lambda *a, **k: calls.append(1) or original(*a, **k))
    assert accelerate(net) is net
    assert list(net.state_dict()) == names
    assert torch.allclose(net(x), plain, atol=1e-5)
    assert len(calls) == 2
    assert torch.equal(net(odd), plain_odd)
    assert len(calls) == 2


def test_shapes_that_do_not_fit_are_named():
    leaves, _ = tensors((1, 16, 16, 6, 4, 1))
    with pytest.raises(Error, match="heights and widths in multiples of 4"):
        convolution(*leaves)

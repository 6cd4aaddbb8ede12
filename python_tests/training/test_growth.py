# SPDX-License-Identifier: Apache-2.0
"""A larger codec that takes over the weights of a smaller one computes the same, and learns."""

import dataclasses

import pytest
import torch

import otcuda
from otcuda.codec.networks import Codec, CodecConfig, quantise_hard
from otcuda.training.growth import take_over

SMALL = CodecConfig(
    latents=16,
    width8=32,
    width16=32,
    analysis_blocks=(1, 1),
    synthesis_blocks=(1, 1),
    context_width=32,
    groups=(2, 6),
)
LARGE = dataclasses.replace(
    SMALL, analysis_blocks=(2, 3), synthesis_blocks=(2, 3), context_width=48
)


@pytest.fixture
def small(rng):
    net = Codec(SMALL)
    for parameter in net.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=rng)
    return net


def test_a_grown_codec_computes_the_same_and_its_new_weights_learn(small, rng):
    large = Codec(LARGE)
    take_over(large, SMALL, small.state_dict())
    planes = 60 * torch.randn(2, 3, 64, 64, generator=rng)
    log2_step = torch.tensor([7.5, 9.0])
    before, bits_before = small(planes, log2_step, quantise_hard)
    after, bits = large(planes, log2_step, quantise_hard)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(bits, bits_before, rtol=1e-4, atol=1e-2)
    (after.square().sum() + bits.sum()).backward()
    for weight in (
        large.analysis.net[3].second.weight,
        large.synthesis.fine[2].second.weight,
        large.context.mix[1].weight[:32, 32:48],
    ):
        assert not weight.any()
    assert large.analysis.net[3].second.weight.grad.any()
    assert large.synthesis.fine[2].second.weight.grad.any()
    assert large.context.mix[1].weight.grad[:32, 32:48].any()


def test_a_new_filter_adds_nothing_and_an_old_one_is_taken_over(small, rng):
    filtered = dataclasses.replace(SMALL, filter_width=16, filter_blocks=1)
    latents = 200 * torch.randn(1, SMALL.latents, 4, 4, generator=rng)
    log2_step = torch.tensor([7.5])
    net = Codec(filtered)
    take_over(net, SMALL, small.state_dict())
    before = small.synthesis(latents, log2_step)
    shown = net.synthesis(latents, log2_step)
    torch.testing.assert_close(shown, before)
    shown.square().sum().backward()
    last = net.synthesis.filter.body[-2].weight
    assert last.grad.any()
    last.data.add_(0.1 * torch.randn(last.shape, generator=rng))
    again = Codec(filtered)
    take_over(again, filtered, net.state_dict())
    mended = again.synthesis(latents, log2_step)
    torch.testing.assert_close(mended, net.synthesis(latents, log2_step))
    assert not torch.allclose(mended, before)
    for other in (SMALL, dataclasses.replace(filtered, filter_blocks=2)):
        with pytest.raises(otcuda.BackendError, match="do not fit"):
            take_over(Codec(other), filtered, net.state_dict())


def test_new_latents_hold_what_the_old_ones_leave(small, rng):
    """In a linear codec of fine steps the error falls to what no latent holds."""
    for net in (small.analysis.net, small.synthesis.fine):
        net[-1 if net is small.analysis.net else -2].weight.data.zero_()
        net[-1 if net is small.analysis.net else -2].bias.data.zero_()
    basis = torch.linalg.qr(torch.randn(768, 768, generator=rng))[0]
    energy = torch.exp(-torch.arange(768) / 8)
    blocks = torch.randn(4000, 768, generator=rng) * 500 * energy.sqrt() @ basis.T
    small.start_from_klt(blocks)
    small.analysis.klt.weight.data[0] *= 1.1  # as training leaves it: not quite orthonormal
    large = Codec(dataclasses.replace(LARGE, latents=40, groups=(2, 6, 16), coarse_copies=3))
    take_over(large, SMALL, small.state_dict(), blocks)
    planes = torch.nn.functional.pixel_shuffle(blocks[:16].T.reshape(1, 768, 4, 4), 16)
    log2_step = torch.tensor([2.0])

    def error(net):
        return (
            net(planes, log2_step, quantise_hard)[0] - planes
        ).square().sum() / planes.square().sum()

    assert error(small) > 0.1
    assert error(large) < 0.012  # exp(-40 / 8), and rounding
    # At a step so coarse that the new symbols are zero, all is as it was.
    planes, log2_step = 0.1 * planes, torch.tensor([9.5])
    before, bits_before = small(planes, log2_step, quantise_hard)
    after, bits = large(planes, log2_step, quantise_hard)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=0.5)
    assert bits > bits_before
    assert bits - bits_before < 24 * 16 * 0.2


def test_new_latents_need_pictures(small):
    large = Codec(dataclasses.replace(LARGE, latents=40, groups=(2, 6, 16)))
    with pytest.raises(otcuda.BackendError, match="blocks of training pictures"):
        take_over(large, SMALL, small.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"width8": 48},
        {"analysis_blocks": (0, 1)},
        {"context_width": 16},
        {"groups": (2, 7)},
        {"latents": 40},
        {"coarse_copies": 0},
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_named(small, change):
    with pytest.raises(otcuda.BackendError, match="do not fit into"):
        take_over(Codec(dataclasses.replace(LARGE, **change)), SMALL, small.state_dict())

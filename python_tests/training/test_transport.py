# SPDX-License-Identifier: Apache-2.0
"""Stage `transport`: heights that balance, labels that are equally frequent, latents from noise."""

from __future__ import annotations

import pytest
import torch
from tiny_codec import packed, tiny_net

from otcuda.codec.head import PerceptualHead
from otcuda.codec.sampling import LatentSampler, sample_pictures, transported_noise
from otcuda.errors import ArgumentError, ModelMismatchError
from otcuda.training.loop import LoopConfig, run_stage
from otcuda.training.noise import NoiseConfig, NoiseStage
from otcuda.training.transport import (
    LabelCodebook,
    TransportConfig,
    TransportStage,
    centres,
    label_counts,
    parts_of,
)
from otcuda.transport import SemiDiscreteOT

NOISE = NoiseConfig(crops=48, crop=64, dimension=4, log2_step=6.0, batch=16)
CONFIG = TransportConfig(chi2=0.02, samples=2048, codes=8, code_dimension=3, positions=4096)


class World:
    """Pictures, a base and the stage `noise`, made once."""

    def __init__(self, folder):
        self.pictures = packed(folder)
        self.net = tiny_net(self.pictures)
        self.noise = NoiseStage(self.net, self.pictures, [], NOISE)
        run_stage(self.noise, folder, LoopConfig())

    def stage(self):
        return TransportStage(self.noise.law, self.noise.latents, self.net.synthesis, CONFIG)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("transport"))


@pytest.fixture(scope="module")
def solved(world, tmp_path_factory):
    stage = world.stage()
    assert run_stage(stage, tmp_path_factory.mktemp("solved"), LoopConfig())
    return stage


def test_heights_balance_the_crops_and_zero_heights_do_not(solved):
    chi2 = solved.validate()["chi2"]
    flat = SemiDiscreteOT(solved.sampler.targets, source="gaussian_cdf")
    flat.heights = torch.zeros(48)
    assert chi2 < 0.05
    assert flat.chi2(20_000, seed=1).value > 20 * max(chi2, 0.01)


def test_noise_draws_every_crop_equally_often(solved):
    draw = solved.sampler.draw(48 * 200, seed=1, extended=False)
    counts = torch.bincount(draw.index, minlength=48)
    assert counts.min() > 120
    assert counts.max() < 300


def test_map_is_that_of_the_stretched_cube(solved):
    """Stretching the targets stands for stretching the source: same cells, up to rounding."""
    law, sampler = solved.sampler.law, solved.sampler
    x = transported_noise(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    coordinates = law.pool(solved.sampler._latents)
    unit = law.scale.square().mean()
    stretched = (x * law.scale) @ coordinates.T + unit * sampler.heights
    assert (stretched.argmax(1) == sampler.ot.assign(x)).float().mean() > 0.99


def test_plain_map_gives_the_latents_of_the_crop(world, solved):
    draw = solved.sampler.draw(20, seed=3, extended=False)
    assert torch.equal(draw.latents, world.noise.latents[draw.index].float())
    assert len(torch.unique(draw.index)) > 5


def test_extended_map_mixes_and_keeps_inside(world, solved):
    draw = solved.sampler.draw(40, seed=3)
    own = world.noise.latents[draw.index].float()
    assert ((draw.latents - own).abs().amax((1, 2, 3)) > 1e-3).float().mean() > 0.5
    low, high = world.noise.latents.float().aminmax(dim=0)
    assert (draw.latents >= low - 1e-2).all()
    assert (draw.latents <= high + 1e-2).all()


def test_coordinates_stand_in_for_missing_latents(solved):
    whole = solved.sampler
    pooled = LatentSampler(whole.law, whole.targets, whole.heights)
    expected = whole.law.unpool(whole.law.pool(whole.draw(12, 5).latents))
    torch.testing.assert_close(pooled.draw(12, 5).latents, expected, rtol=1e-3, atol=0.5)


def test_sampler_survives_saving_and_names_what_is_missing(solved):
    tensors = solved.sampler.tensors()
    again = LatentSampler.from_tensors(tensors)
    assert torch.equal(again.draw(9, 4).latents, solved.sampler.draw(9, 4).latents)
    halves = {
        k: v.half().numpy() if v.dtype.is_floating_point else v.numpy() for k, v in tensors.items()
    }
    close = LatentSampler.from_tensors(halves).draw(200, 4, extended=False)
    assert (close.index == solved.sampler.draw(200, 4, extended=False).index).float().mean() > 0.95
    tensors.pop("heights")
    with pytest.raises(ModelMismatchError, match="heights"):
        LatentSampler.from_tensors(tensors)


def test_same_seed_same_draw_and_other_seed_another(solved):
    first, again, other = (solved.sampler.draw(6, seed).latents for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ArgumentError, match="n is 0"):
        solved.sampler.draw(0, 1)


def test_pictures_of_noise_differ_and_listen_to_the_head(world, solved):
    head = PerceptualHead(world.net.config)
    torch.nn.init.normal_(head.out.weight, std=0.1)
    plain = sample_pictures(world.net, solved.sampler, 3, 7)
    assert plain.shape == (3, 64, 64, 3)
    assert plain.dtype == "uint8"
    assert abs(plain[0].astype(int) - plain[1]).mean() > 1
    textured = sample_pictures(world.net, solved.sampler, 3, 7, head=head)
    assert abs(plain.astype(int) - textured).mean() > 0.5
    still = sample_pictures(world.net, solved.sampler, 3, 7, head=head, realism=0.0)
    assert (still == plain).all()


# --- labels ---------------------------------------------------------------------------------------


def test_labels_are_balanced_by_heights_and_not_without(world, solved):
    book = solved.codebook
    nearest = LabelCodebook(book.mean, book.basis, book.codes, -book.codes.square().sum(1) / 2)

    def imbalance(codebook):
        share = label_counts(codebook, world.noise.latents).double()
        share = share / share.sum()
        return float(len(share) * share.square().sum() - 1)

    assert imbalance(book) < 0.03
    assert imbalance(nearest) > 0.08


def test_jitter_moves_latents_inside_their_cells(world, solved, rng):
    latents = world.noise.latents[:8].float()
    moved = solved.codebook.jittered(latents, 16.0, rng)
    assert torch.equal(solved.codebook.labels(moved), solved.codebook.labels(latents))
    assert (moved - latents).abs().max() <= 8.0
    assert ((moved - latents).abs().amax(1) > 0).float().mean() > 0.5


def test_a_wide_jitter_would_leave_the_cells(world, solved, rng):
    """So that the test above cannot pass by chance."""
    latents = world.noise.latents[:8].float()
    moved = latents + 400 * (torch.rand(latents.shape, generator=rng) - 0.5)
    assert (solved.codebook.labels(moved) != solved.codebook.labels(latents)).any()
    held = solved.codebook.jittered(latents, 400.0, rng)
    assert torch.equal(solved.codebook.labels(held), solved.codebook.labels(latents))


def test_centres_fall_on_planted_clusters(rng):
    truth = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    points = (truth[:, None] + 0.1 * torch.randn(3, 100, 2, generator=rng)).flatten(0, 1)
    found = min((centres(points, 3, seed) for seed in range(4)), key=lambda c: _spread(points, c))
    assert torch.cdist(truth, found).amin(1).max() < 0.2
    with pytest.raises(ArgumentError, match="codes is 5"):
        centres(truth, 5, 0)


def _spread(points, codes):
    return torch.cdist(points, codes).amin(1).sum().item()


# --- resume ---------------------------------------------------------------------------------------


def test_resumed_run_equals_an_unbroken_one(world, solved, tmp_path):
    broken, resumed = world.stage(), world.stage()
    broken.steps = 1
    run_stage(broken, tmp_path, LoopConfig())
    assert broken.codebook is None
    run_stage(resumed, tmp_path, LoopConfig())
    whole, again = solved.state()[0], resumed.state()[0]
    assert whole.keys() == again.keys()
    for name, tensor in whole.items():
        assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(again[name])), name
    sampler, codebook = parts_of(again)
    assert torch.equal(sampler.draw(5, 1).latents, solved.sampler.draw(5, 1).latents)
    assert torch.equal(codebook.heights, solved.codebook.heights)

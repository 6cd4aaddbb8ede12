# SPDX-License-Identifier: Apache-2.0
"""The perceptual head: the base when untrained, noise from the payload alone, no lattice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otcuda.codec.head import (
    Noise,
    PerceptualHead,
    blend,
    lattice_score,
    noise_planes,
)
from otcuda.codec.networks import CodecConfig
from otcuda.codec.noise import noise_seed, noise_values, noise_window
from otcuda.errors import ArgumentError, ShapeError

SMALL = CodecConfig(latents=8, width8=8, width16=8)


def inputs(rng, edge=64):
    features = torch.randn(2, 8, edge // 8, edge // 8, generator=rng)
    return features, 60 * torch.randn(2, 3, edge, edge, generator=rng)


def awake(head):
    """The head with small weights in place of the zeros."""
    torch.manual_seed(1)
    for layer in (head.residual, head.out):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return head


# --- the network ----------------------------------------------------------------------------------


def test_untrained_head_is_the_base_exactly(rng):
    features, x0 = inputs(rng)
    head = PerceptualHead(SMALL)
    assert torch.equal(head(features, x0, noise_planes(1, 2, 64, 64)), x0)
    assert torch.equal(head.blend(features, x0, 0.7, seed=5), x0)


def test_same_seed_same_picture_and_other_seed_another(rng):
    features, x0 = inputs(rng)
    head = awake(PerceptualHead(SMALL))
    first, again, other = (head.blend(features, x0, 1.0, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3


@pytest.mark.parametrize("silent", ["coarse", "fine"])
def test_each_kind_of_noise_reaches_the_picture(silent, rng):
    features, x0 = inputs(rng)
    head, noise = awake(PerceptualHead(SMALL)), noise_planes(1, 2, 64, 64)
    muted = noise._replace(**{silent: torch.zeros_like(getattr(noise, silent))})
    assert (head(features, x0, noise) - head(features, x0, muted)).abs().max() > 1e-3


def test_fine_noise_is_steered_by_the_features(rng):
    features, x0 = inputs(rng)
    head, noise = awake(PerceptualHead(SMALL)), noise_planes(1, 2, 64, 64)
    muted = Noise(noise.coarse, torch.zeros_like(noise.fine))

    def grain(f):
        return head(f, x0, noise) - head(f, x0, muted)

    assert (grain(features) - grain(3 * features)).abs().max() > 1e-3


def test_full_resolution_layers_smooth_across_the_borders_of_the_shuffle(rng):
    """A residual that lives in one 8x8 block must reach the pixels next to it."""
    head = PerceptualHead(SMALL)
    with torch.no_grad():
        head.residual.bias.zero_()
        head.fine.weight.fill_(0.1)
        head.out.weight.fill_(0.1)
        features, x0, noise = torch.zeros(1, 8, 8, 8), torch.zeros(1, 3, 64, 64), None
        noise = Noise(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 64, 64))
        still = head(features, x0, noise)
        x0 = x0.clone()
        x0[:, :, 24:32, 24:32] = 100.0
        moved = head(features, x0, noise) - x0 - still
    assert moved[:, :, 30, 32].abs().min() > 1e-3
    assert moved[:, :, 30, 33].abs().min() > 1e-3
    assert moved[:, :, 30, 34].abs().max() == 0


def test_default_head_is_small_enough_to_ship():
    weights = sum(p.numel() for p in PerceptualHead(CodecConfig()).parameters())
    assert 2 * weights <= 1.4e6  # bytes as fp16


# --- realism --------------------------------------------------------------------------------------


def test_blend_is_exact_at_both_ends_and_linear_between(rng):
    x0, x1 = torch.randn(2, 1, 3, 8, 8, generator=rng).unbind(0)
    assert torch.equal(blend(x0, x1, 0.0), x0)
    assert torch.equal(blend(x0, x1, 1.0), x1)
    torch.testing.assert_close(blend(x0, x1, 0.25), 0.75 * x0 + 0.25 * x1)


@pytest.mark.parametrize("realism", [-0.1, 1.1, float("nan")])
def test_realism_outside_the_unit_interval_is_an_error(realism):
    with pytest.raises(ArgumentError, match="realism"):
        blend(torch.zeros(1), torch.ones(1), realism)


# --- noise ----------------------------------------------------------------------------------------


def philox(key: int, block: int) -> list[int]:
    """Four words of Philox4x64-10 at counter `block`, from the paper's definition."""
    mask = (1 << 64) - 1
    k0, k1 = key & mask, key >> 64
    c = [block & mask, block >> 64, 0, 0]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(b >> 64) ^ c[1] ^ k0, b & mask, (a >> 64) ^ c[3] ^ k1, a & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return c


def test_noise_is_the_sum_of_four_bytes_of_philox():
    seed = noise_seed(b"payload")
    words = [word for block in range(1, 4) for word in philox(seed, block)]  # NumPy begins at 1
    octets = np.frombuffer(b"".join(word.to_bytes(8, "little") for word in words), np.uint8)
    total = octets.reshape(-1, 4).astype(np.float64).sum(1) - 510
    expected = total / np.sqrt(4 * (256**2 - 1) / 12)
    np.testing.assert_allclose(noise_values(seed, (24,)), expected, rtol=1e-6, atol=0)


def test_noise_seed_is_blake2b_of_the_payload():
    assert noise_seed(b"") == int.from_bytes(
        bytes.fromhex("cae66941d9efbd404e4d88758ea67670"), "little"
    )
    assert noise_seed(b"a") != noise_seed(b"b")


def test_noise_values_do_not_depend_on_how_many_are_asked_for():
    np.testing.assert_array_equal(noise_values(9, (1001,))[:37], noise_values(9, (37,)))
    for begin in (1, 7, 8, 13, 999):
        np.testing.assert_array_equal(
            noise_values(9, (2,), begin), noise_values(9, (1001,))[begin:][:2]
        )


def test_a_window_of_noise_is_cut_out_of_the_whole():
    whole = noise_values(5, (3 + 2 * 7 * 11,))[3:].reshape(2, 7, 11)
    window = noise_window(5, 3, (2, 7, 11), slice(2, 5), slice(4, 10))
    np.testing.assert_array_equal(window, whole[:, 2:5, 4:10])


def test_noise_has_mean_zero_variance_one_and_no_correlation():
    values = noise_values(2, (100, 10_000))
    assert abs(values.mean()) < 4e-3
    assert abs(values.var() - 1) < 6e-3
    for lag in (1, 8, 16):
        assert abs((values[:, lag:] * values[:, :-lag]).mean()) < 4e-3


def test_noise_planes_want_multiples_of_eight():
    noise = noise_planes(0, 2, 64, 40)
    assert noise.coarse.shape == (2, 4, 8, 5)
    assert noise.fine.shape == (2, 4, 64, 40)
    with pytest.raises(ShapeError, match="multiples of 8"):
        noise_planes(0, 1, 60, 64)


# --- lattice --------------------------------------------------------------------------------------


def half_flat(rng, edge=256):
    """A picture whose left half is flat and whose right half is rough."""
    picture = torch.full((1, 3, edge, edge), 100.0)
    picture[..., edge // 2 :] += 50 * torch.randn(1, 3, edge, edge // 2, generator=rng)
    return picture


@pytest.mark.parametrize("period", [8, 16])
def test_planted_lattice_is_seen_through_noise(period, rng):
    tile = 3 * torch.randn(1, 3, period, period, generator=rng)
    lattice = tile.repeat(1, 1, 256 // period, 256 // period)
    grain = torch.randn(1, 3, 256, 256, generator=rng)
    assert lattice_score(lattice + grain, half_flat(rng)) > 0.8


@pytest.mark.parametrize("axis", [2, 3])
def test_stripes_along_either_axis_are_seen(axis, rng):
    wave = 4 * torch.cos(torch.arange(256) * 2 * torch.pi / 16)
    stripes = wave.view(-1, 1) if axis == 2 else wave.view(1, -1)
    grain = torch.randn(1, 3, 256, 256, generator=rng)
    assert lattice_score(stripes.expand(1, 3, 256, 256) + grain, half_flat(rng)) > 0.8


def test_noise_shades_and_invisible_lattices_are_no_lattice(rng):
    picture = half_flat(rng)
    grain = 5 * torch.randn(1, 3, 256, 256, generator=rng)
    ramp = torch.linspace(0, 60, 256).expand(1, 3, 256, 256)
    faint = 0.05 * torch.randn(1, 3, 16, 16, generator=rng).repeat(1, 1, 16, 16)
    assert lattice_score(grain, picture) < 0.1
    assert lattice_score(grain + ramp, picture) < 0.1
    assert lattice_score(faint, picture) < 0.1


def test_lattice_under_rough_texture_does_not_count(rng):
    tile = 3 * torch.randn(1, 3, 16, 16, generator=rng)
    lattice = tile.repeat(1, 1, 16, 16)
    lattice[..., :144] = 0  # windows that lie in the flat half see none of it
    grain = torch.randn(1, 3, 256, 256, generator=rng)
    assert lattice_score(lattice + grain, half_flat(rng)) < 0.1


def test_lattice_score_wants_room_for_its_windows():
    with pytest.raises(ShapeError, match="at least 96"):
        lattice_score(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))

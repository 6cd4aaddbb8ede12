# SPDX-License-Identifier: Apache-2.0
"""The mode of constant length: invertible tiles, exact bits, equally likely codes, local damage."""

import numpy as np
import pytest

import otcuda
from otcuda.codec import fixed

M = 6


def latents(seed, h=8, w=8):
    """Smooth along the grid and weaker from channel to channel, as latents are."""
    rng = np.random.default_rng(seed)
    rough = rng.laplace(size=(M, h, w)) + 4 * rng.laplace(size=(M, h // 4, w // 4)).repeat(
        4, 1
    ).repeat(4, 2)
    return (rough * 2.0 ** -np.arange(M)[:, None, None] * 50).astype(np.float32)


@pytest.fixture(scope="module")
def coefficients():
    return np.concatenate([fixed.tile_coefficients(latents(k)) for k in range(1500)])


@pytest.fixture(scope="module")
def part(coefficients):
    return fixed.fit_tables(coefficients, [20, 44], 190)


def test_tiles_are_an_orthonormal_transform():
    x = latents(0, 12, 8)
    spectrum = fixed.tile_coefficients(x)
    np.testing.assert_allclose(np.square(spectrum).sum(), np.square(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(fixed.tile_latents(spectrum, M, 12, 8), x, atol=1e-3)


@pytest.mark.parametrize("bits", [1, 7, 60, 200])
def test_bits_are_shared_out_exactly_and_to_the_strong(bits):
    variance = np.random.default_rng(0).gamma(0.3, 1000, 96)
    groups = fixed.allocate(variance, bits)
    assert sum(b for _, b in groups) == bits
    columns = np.concatenate([c for c, _ in groups])
    assert len(set(columns.tolist())) == len(columns)
    assert variance[columns].min() >= np.delete(variance, columns).max(initial=0)


def test_payload_length_depends_on_the_size_alone(part):
    for number in (0, 1):
        wanted = fixed.payload_bytes(part, number, (128, 128))
        assert {len(fixed.encode(part, latents(k), number)) for k in range(900, 910)} == {wanted}


def test_round_trip_and_more_bits_are_closer(part):
    x = latents(2000)
    errors = []
    for number in (0, 1):
        payload = fixed.encode(part, x, number)
        decoded, step = fixed.decode(part, payload, number, (128, 128))
        assert step == 190
        errors.append(np.square(decoded - x).mean())
    assert errors[1] < errors[0] < x.var()


def test_balanced_codes_are_equally_likely_and_nearest_ones_are_not(coefficients, part):
    nearest = fixed.fit_tables(coefficients, [20, 44], 190, rule="nearest")

    def lost_bits(arrays):
        lost = []
        for columns, y, heights in fixed._groups(arrays, 1):
            samples = np.ascontiguousarray(coefficients[:, columns])
            index = otcuda.power_argmax(samples, y, heights)[1]
            share = np.bincount(index, minlength=len(y)) / len(index)
            entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
            lost.append(np.log2(len(y)) - entropy)
        return np.mean(lost)

    assert lost_bits(part) < 0.05
    assert lost_bits(nearest) > 5 * lost_bits(part)


def test_zero_heights_decode_to_worse_pictures(part):
    """The heights are no ornament: without them the codes are chosen wrongly."""
    flat = dict(part)
    flat["1.heights"] = np.zeros_like(part["1.heights"])
    x = latents(2001)
    error = [
        np.square(fixed.decode(p, fixed.encode(p, x, 1), 1, (128, 128))[0] - x).mean()
        for p in (part, flat)
    ]
    assert error[1] > 1.5 * error[0]


def test_one_damaged_bit_harms_one_tile(part):
    payload = bytearray(fixed.encode(part, latents(2002), 1))
    whole, _ = fixed.decode(part, bytes(payload), 1, (128, 128))
    payload[1] ^= 0x10
    hurt, _ = fixed.decode(part, bytes(payload), 1, (128, 128))
    changed = np.abs(whole - hurt).max(0) > 0
    assert changed.any()
    assert not changed[:, 4:].any()
    assert not changed[4:].any()


def test_budget_chooses_the_table(part):
    rich, poor = (fixed.payload_bytes(part, n, (128, 128)) for n in (1, 0))
    assert fixed.choose_table(part, (128, 128), rich) == 1
    assert fixed.choose_table(part, (128, 128), rich - 1) == 0
    with pytest.raises(otcuda.BudgetError, match=f"the least is {poor} bytes"):
        fixed.choose_table(part, (128, 128), poor - 1)
    with pytest.raises(otcuda.ArgumentError, match="no codebooks"):
        fixed.choose_table({}, (128, 128), None)


def test_damaged_payloads_are_named(part):
    payload = fixed.encode(part, latents(1), 1)
    with pytest.raises(otcuda.CorruptDataError, match="it should have"):
        fixed.decode(part, payload[:-1], 1, (128, 128))
    with pytest.raises(otcuda.CorruptDataError, match="bit table 9"):
        fixed.decode(part, payload, 9, (128, 128))


def test_the_transform_is_the_orthonormal_dct_whatever_the_order_of_sums():
    f, n = np.arange(4)[:, None], np.arange(4)[None]
    dct = np.sqrt(np.where(f == 0, 1, 2) / 4) * np.cos(np.pi * f * (2 * n + 1) / 8)
    np.testing.assert_allclose(fixed._DCT, dct, rtol=0, atol=3e-16)
    latents = np.random.default_rng(0).normal(0, 50, (3, 8, 12)).astype(np.float32)
    coefficients = fixed.tile_coefficients(latents)
    again = fixed.tile_latents(coefficients, 3, 8, 12)
    np.testing.assert_allclose(again, latents, atol=2e-5)
    spectrum = coefficients.reshape(2, 3, 3, 4, 4).astype(np.float64)
    exact = np.einsum("fa,xymfg,gb->mxayb", dct, spectrum, dct).reshape(3, 8, 12)
    np.testing.assert_allclose(again, exact, rtol=3e-7, atol=1e-12)

# SPDX-License-Identifier: Apache-2.0
"""The height rules: what each promises, and the identity that joins ECVQ with optimal transport."""

import numpy as np
import pytest

import otcuda
from otcuda.codec.quantiser import (
    balanced_heights,
    dequantised,
    ecvq_heights,
    fit_ecvq,
    latent_shape,
    nearest_heights,
    step_size,
)
from otcuda.transport import SemiDiscreteOT


@pytest.fixture
def points():
    rng = np.random.default_rng(3)
    return rng.laplace(size=(20000, 2)).astype(np.float32)


@pytest.fixture
def codes():
    return np.random.default_rng(4).laplace(size=(24, 2)).astype(np.float32)


def assign(x, y, heights):
    return otcuda.power_argmax(x, y, np.asarray(heights, np.float32))[1]


def test_nearest_heights_give_the_nearest_code(points, codes):
    distances = np.square(points[:, None] - codes[None]).sum(2)
    assert (assign(points, codes, nearest_heights(codes)) == distances.argmin(1)).mean() > 0.9999


def test_ecvq_heights_minimise_distortion_plus_rate(points, codes):
    lengths, multiplier = np.random.default_rng(5).uniform(1, 8, 24), 0.3
    cost = np.square(points[:, None] - codes[None]).sum(2) + multiplier * lengths
    got = assign(points, codes, ecvq_heights(codes, lengths, multiplier))
    assert (got == cost.argmin(1)).mean() > 0.9999


def test_balanced_heights_fill_every_cell_alike(points, codes):
    balanced = assign(points, codes, balanced_heights(codes, points))
    nearest = assign(points, codes, nearest_heights(codes))

    def chi2(index):
        return np.square(np.bincount(index, minlength=24) / len(points) * 24 - 1).mean()

    assert chi2(balanced) < 0.03
    assert chi2(nearest) > 0.3


def test_ecvq_lengths_are_those_of_its_own_masses(points, codes):
    fitted = fit_ecvq(points, codes, 0.3, iterations=300)
    index = assign(points, fitted.y, fitted.heights)
    share = np.bincount(index, minlength=len(fitted.y)) / len(points)
    np.testing.assert_allclose(fitted.lengths, -np.log2(share), atol=0.02)


def test_ecvq_beats_nearest_at_equal_entropy(points, codes):
    def rate_and_error(y, heights):
        index = assign(points, y, heights)
        share = np.bincount(index, minlength=len(y)) / len(points)
        entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
        return entropy, np.square(points - y[index]).sum(1).mean()

    plain = fit_ecvq(points, codes, 0.0)
    rate, error = rate_and_error(plain.y, plain.heights)
    fitted = fit_ecvq(points, codes, 0.1)
    lower_rate, larger_error = rate_and_error(fitted.y, fitted.heights)
    assert lower_rate + larger_error / 0.1 < rate + error / 0.1


def test_optimal_transport_onto_the_masses_of_ecvq_is_ecvq(points, codes):
    """ECVQ is semi-discrete OT with masses chosen for the rate: the same cells come back."""
    fitted = fit_ecvq(points, codes, 0.3, iterations=300)
    index = assign(points, fitted.y, fitted.heights)
    mass = np.bincount(index, minlength=len(fitted.y)) / len(points)
    ot = SemiDiscreteOT(fitted.y, nu=mass, source=points)
    ot.fit(seed=1, chi2=1e-4, max_samples=20_000_000)
    assert (ot.assign(points) == index).mean() >= 0.99


def test_negative_multiplier_is_refused(points, codes):
    with pytest.raises(otcuda.ArgumentError, match="multiplier is -1"):
        fit_ecvq(points, codes, -1)


def test_grid():
    assert step_size(0) == 8
    assert step_size(32) == 16
    values = np.array([16, -8], np.int16)
    np.testing.assert_array_equal(dequantised(values, 32, 1 / 16), [16, -8])
    np.testing.assert_array_equal(dequantised(values, 32, 1 / 64), [4, -2])
    assert latent_shape((512, 768)) == (32, 48)
    assert latent_shape((1, 65)) == (4, 8)

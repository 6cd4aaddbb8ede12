# SPDX-License-Identifier: Apache-2.0
"""Sources: laws, keys, what a sampler may be, and what it may not give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport import Source
from otcuda.transport.arrays import Home
from otcuda.transport.sources import Stream, key, make_source, normal_cdf

NUMPY = Home()


def draw(source, n=20_000, D=3, seed=0, home=NUMPY):
    return make_source(source, D).sample(n, key(seed), D, home)


@pytest.mark.parametrize(
    ("name", "mean", "variance", "low"),
    [("normal", 0, 1, -9), ("uniform", 0.5, 1 / 12, 0), ("gaussian_cdf", 0.5, 1 / 12, 0)],
)
def test_named_laws(name, mean, variance, low):
    x = draw(name)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * (variance / 20_000) ** 0.5)
    np.testing.assert_allclose(np.cov(x.T), variance * np.eye(3), atol=0.05 * variance)
    assert x.min() >= low
    fractions = [(x < make_source(name, 1).quantile(np.array([p]))[0]).mean() for p in (0.1, 0.7)]
    np.testing.assert_allclose(fractions, [0.1, 0.7], atol=0.01)


def test_same_key_same_samples_in_both_kinds_and_fresh_ones_elsewhere():
    a = draw("normal", 100)
    torch.testing.assert_close(
        draw("normal", 100, home=Home(torch.device("cpu"))), torch.from_numpy(a), rtol=0, atol=0
    )
    assert not np.isin(draw("normal", 100, seed=1), a).any()
    assert (
        len({key(seed, *purpose) for seed in range(9) for purpose in [(), (0,), (1,), (0, 1)]})
        == 36
    )


def test_noise_becomes_samples():
    z = np.array([[-1.0, 0.0, 2.0]])
    assert make_source("normal", 3).from_noise(z) is z
    cube = make_source("gaussian_cdf", 3).from_noise(z)
    np.testing.assert_allclose(cube, [[0.15865525, 0.5, 0.97724987]], rtol=1e-7)
    torch.testing.assert_close(normal_cdf(torch.from_numpy(z)), torch.from_numpy(cube))
    with pytest.raises(ArgumentError, match="no map from noise"):
        make_source(lambda n: np.zeros((n, 3)), 3).from_noise(z)


def test_samplers_with_and_without_seed():
    seeded = make_source(lambda n, seed: np.random.default_rng(seed).normal(size=(n, 2)), 2)
    np.testing.assert_array_equal(seeded.sample(5, 3, 2, NUMPY), seeded.sample(5, 3, 2, NUMPY))
    assert (seeded.sample(5, 3, 2, NUMPY) != seeded.sample(5, 4, 2, NUMPY)).all()
    plain = make_source(lambda n: torch.ones(n, 2), 2)
    np.testing.assert_array_equal(plain.sample(4, 0, 2, NUMPY), np.ones((4, 2), np.float32))
    own = Source(lambda n, key: np.full((n, 2), key % 7), "own")
    assert make_source(own, 2) is own


def test_points_are_drawn_alike_and_passed_over_in_shuffled_order():
    points = np.arange(10.0)[:, None]
    counts = np.bincount(draw(points, 10_000, 1)[:, 0].astype(int), minlength=10)
    assert (abs(counts - 1000) < 150).all()
    stream = Stream(make_source(points, 1), 1, NUMPY, seed=0)
    passes = [np.concatenate([stream.next(5) for _ in range(2)])[:, 0] for _ in range(3)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert (passes[0] != passes[1]).any()
    assert len(stream.next(99)) == 10
    np.testing.assert_array_equal(
        make_source(points, 1).quantile(np.array([0.1, 0.5, 1.0])), [0.5, 4.5, 9.5]
    )


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("gauss", ArgumentError, "'gauss'; the named ones are 'normal'"),
        (7, ArgumentError, "source is int"),
        (np.zeros((4, 2)), ShapeError, r"points \[M, 3\].*got \[4, 2\]"),
        (np.zeros((0, 3)), ShapeError, "M >= 1"),
        (np.array([[1.0, np.nan, 0.0]]), ArgumentError, "not finite"),
        (np.array([["a", "b", "c"]]), ArgumentError, "expected float32 or float64"),
    ],
)
def test_wrong_sources_are_named(source, error, says):
    with pytest.raises(error, match=says):
        make_source(source, 3)


@pytest.mark.parametrize(
    ("sampler", "error", "says"),
    [
        (lambda n: np.zeros((n, 2)), ShapeError, r"owes x \[6, 3\]; it gave \[6, 2\]"),
        (lambda n: np.zeros((n + 1, 3)), ShapeError, r"it gave \[7, 3\]"),
        (lambda n: np.full((n, 3), np.nan), ArgumentError, "not finite"),
        (lambda n: np.full((n, 3), 1j), ArgumentError, "complex128"),
        (lambda n: None, ArgumentError, "expected float32"),
    ],
)
def test_samplers_that_break_their_word_are_named(sampler, error, says):
    with pytest.raises(error, match=says):
        draw(sampler, 6)

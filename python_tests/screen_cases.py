# SPDX-License-Identifier: Apache-2.0
"""Data that is easy, hard or wild for the integer screen."""

from __future__ import annotations

import numpy as np

import otcuda

N, D, B = 2100, 40, 75


def paths(reset=True):
    return otcuda.backend_info(reset=reset)["paths"]


def nearest(y):
    return (-np.square(y.astype("f8")).sum(1) / 2).astype("f4")


def normal(rng):
    x, y = (rng.standard_normal((n, D)).astype("f4") for n in (B, N))
    return x, y, nearest(y)


def inner_product(rng):
    x, y, h = normal(rng)
    return x, y, h * 0


def near_duplicates(rng):
    x, y, _ = normal(rng)
    y = y[np.arange(N) % 130] + np.float32(1e-6) * rng.standard_normal((N, D)).astype("f4")
    return x, y, nearest(y)


def duplicates(rng):
    x, y, _ = normal(rng)
    y = y[np.arange(N) % 260]
    return x, y, nearest(y)


def all_equal(rng):
    x, y, _ = normal(rng)
    return x, np.repeat(y[:1], N, 0), np.zeros(N, "f4")


def ties_on_a_grid(rng):
    x, y = (rng.integers(-2, 3, (n, D)).astype("f4") for n in (B, N))
    return x, y, nearest(y)


def on_a_surface(rng):
    basis = rng.standard_normal((6, D)).astype("f4")
    x, y = (rng.standard_normal((n, 6)).astype("f4") @ basis for n in (B, N))
    return x, y, nearest(y)


def wild_norms(rng):
    x, y, _ = normal(rng)
    y *= np.exp(3 * rng.standard_normal((N, 1))).astype("f4")
    return x, y, nearest(y)


def constant_coordinate(rng):
    x, y, _ = normal(rng)
    x[:, 0] = y[:, 0] = 1000
    return x, y, nearest(y)


def off_centre(rng):
    x, y, _ = normal(rng)
    x, y = np.abs(x) + np.float32(2), y - np.float32(5)
    return x, y, nearest(y)


def huge_heights(rng):
    x, y, _ = normal(rng)
    return x, y, (1e6 * rng.standard_normal(N)).astype("f4")


def hopeless_heights(rng):
    x, y, _ = normal(rng)
    return x, y, (1e29 * rng.standard_normal(N)).astype("f4")


def half_dead(rng):
    x, y, h = normal(rng)
    h[::2] = -np.inf
    return x, y, h


def all_dead(rng):
    x, y, h = normal(rng)
    return x, y, h - np.float32(np.inf)


def heavy_tails(rng):
    x, y = (rng.standard_t(2, (n, D)).astype("f4") for n in (B, N))
    return x, y, nearest(y)


def one_huge_target(rng):
    x, y, _ = normal(rng)
    y[5] *= 1e4
    return x, y, nearest(y)


def tiny_samples(rng):
    x, y, h = normal(rng)
    x[: B // 2] *= np.float32(1e-20)
    return x, y, h * 0


def zero_samples(rng):
    x, y, h = normal(rng)
    return x * 0, y, h


def subnormal_scores(rng):
    x, y, h = normal(rng)
    return x * np.float32(1e-22), y * np.float32(1e-22), h * 0


def wild_samples(rng):
    x, y, h = normal(rng)
    x[3], x[7, 0], x[11], x[40] = np.nan, np.inf, 3e15, 0
    return x, y, h


def wild_targets(rng):
    x, y, h = normal(rng)
    y[3], y[9, 0] = np.nan, np.inf
    return x, y, h


def wild_heights(rng):
    x, y, h = normal(rng)
    h[3], h[9] = np.nan, np.inf
    return x, y, h


def signs(rng):
    """Integers at their largest, all products of one sign: 16 bits would not hold their sums."""
    y = rng.choice(np.float32([-1, 1]), (N, D))
    return y[rng.integers(0, N, B)] * np.float32(3), y, np.zeros(N, "f4")


def zero_sums(rng):
    """All scores are zeros of either sign."""
    x, y, h = normal(rng)
    return np.full_like(x, 1e-30), -np.abs(y) * np.float32(1e-30), h * np.float32(-0.0)


DATA = [
    normal, inner_product, near_duplicates, duplicates, all_equal, ties_on_a_grid, on_a_surface,
    wild_norms, constant_coordinate, off_centre, huge_heights, hopeless_heights, half_dead,
    all_dead, heavy_tails, one_huge_target, tiny_samples, zero_samples, subnormal_scores,
    wild_samples, wild_targets, wild_heights, signs, zero_sums,
]  # fmt: skip


def problem(B, N, D, seed=0):
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal((n, D)).astype("f4") for n in (B, N))
    return x, y, nearest(y)

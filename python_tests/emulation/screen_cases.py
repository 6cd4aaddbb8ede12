# SPDX-License-Identifier: Apache-2.0
"""Problems for the screen: samples near targets, scores that nearly tie, numbers that are none."""

from __future__ import annotations

import numpy as np


def far_apart(B=96, N=320, D=48):
    """Samples near their targets: the certificate holds for nearly all."""
    rng = np.random.default_rng(0)
    y = (4 * rng.normal(size=(N, D))).astype("f4")
    x = y[rng.integers(0, N, B)] + rng.normal(size=(B, D)).astype("f4")
    return x.astype("f4"), y, (-(y**2).sum(1) / 2).astype("f4")


def near_ties(D=64, N=256, B=64, seed=0):
    """Numbers that bfloat16 holds, so that only the sums are off; scores a few roundings apart."""
    rng = np.random.default_rng(seed)
    base = rng.integers(1, 255, D)
    y = np.tile(base, (N, 1)).astype("f4") / 64
    flips = rng.integers(0, D, N)
    y[np.arange(N), flips] += rng.integers(-1, 2, N) / 64
    x = rng.integers(64, 255, (B, D)).astype("f4") / 64
    return x, y, (rng.normal(size=N) * 1e-3).astype("f4")


def tight(D=128, G=5, B=4):
    """Sums of one sign that bfloat16 holds; the second best group is a hair below the best one."""
    rng = np.random.default_rng(5)
    y = np.full((64 * G, D), 1.0, "f4")
    y[64:] -= (rng.integers(0, 2, (64 * (G - 1), D)) / 128).astype("f4")
    x = np.full((B, D), 1.0, "f4")
    h = np.where(np.arange(64 * G) < 64, 0.0, D / 256 + rng.normal(size=64 * G) * 2e-4)
    return x, y, h.astype("f4")


def one_sided(B=16, D=32, N=192):
    """Only samples, or only targets, or only heights are rounded; ties by a hair."""
    rng = np.random.default_rng(6)
    round_ones = rng.integers(64, 128, (N, D)).astype("f4") / 64
    fine = (rng.integers(64, 128, (B, D)) / 64 + rng.normal(size=(B, D)) * 4e-3).astype("f4")
    yield fine, round_ones, (-(fine.mean(0) * round_ones).sum(1)).astype("f4")
    x = rng.integers(64, 128, (B, D)).astype("f4") / 64
    y = (round_ones + rng.normal(size=(N, D)) * 4e-3).astype("f4")
    yield x, y, (-(x.mean(0) * y).sum(1)).astype("f4")


def against_sums(D=128):
    """Sums from a large height; with errors of kind 3 the winner falls and the loser rises."""
    y = np.ones((128, D), "f4")
    y[64:] = 1 + 2.0**-7  # odd in bfloat16
    h = np.full(128, 1000, "f4")
    h[5], h[70] = 1024.01, 1024
    return np.full((3, D), 2.0**-10, "f4"), y, h


def against_rounding(D=32):
    """What rounding takes from the sample, or from the target, decides."""
    x, y, h = np.full((3, D), 1.0019, "f4"), np.ones((128, D), "f4"), np.full(128, -9, "f4")
    y[64:] = 0
    h[5], h[70] = 0, D * 1.001
    yield x, y, h
    yield np.ones((3, D), "f4"), y * np.float32(1.0019), h
    beside = y * np.float32(1.0019)
    beside[:64] = 0
    beside[5], beside[37] = 1.0019, np.nan  # of two targets that a lane holds one is no number
    yield np.ones((3, D), "f4"), beside, h


def against_overflow(D=128):
    """With errors of kind 3 the loser's sum becomes infinite, and the winner's falls."""
    x, y, h = against_sums(D)
    high = np.finfo("f4").max * (1 - 5.5 * 2.0**-17)
    h[5], h[70] = high, high * (1 - 2.0**-22)
    return x, y, h


def wrong_sums():
    """Those of problems() to be met with wrong sums as well."""
    yield near_ties(20, 130, 40, 1)
    yield tight()
    yield against_sums()
    yield against_overflow()
    yield from against_rounding()


def certain():
    """No sample may be left to the tile kernel."""
    yield far_apart(130, 1050, 20)  # shares of five groups and of two
    x, y, h = far_apart(40, 320, 20)
    h[:64] = -np.inf  # all that one warp sees
    yield x, y, h


def problems():
    """(x, y, h), small."""
    yield from wrong_sums()
    yield from one_sided()
    x, y, h = far_apart(40, 64, 20)
    yield np.r_[x, x, x, x][:140], y[:63], h[:63]
    yield x, np.tile(y, (3, 1)), np.tile(h, 3)
    y, h = np.tile(y, (17, 1)), np.tile(h, 17)
    yield x, y, h  # 17 groups tie: one too many
    y[3, 4], h[900] = np.nan, np.inf
    x[7, 2], x[9, 0], x[11] = np.inf, np.nan, 3e38
    yield x, y, h

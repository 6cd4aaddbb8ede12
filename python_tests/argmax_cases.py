# SPDX-License-Identifier: Apache-2.0
"""The golden cases of power_argmax, the same for CPU, emulator, PTX runner and device.

Inputs are integers of a fixed PCG32 times 2^-20: no libm, the same on every machine.
"""

from __future__ import annotations

import exact
import numpy as np

SHAPES = [
    (1, 1, 1),
    (3, 5, 2),
    (65, 97, 3),
    (64, 96, 16),
    (130, 4099, 17),
    (64, 1000, 64),
    (7, 20011, 65),
    (64, 512, 257),
    (5, 300, 1024),
]
HEIGHTS = ["zero", "nearest", "huge", "half dead", "all dead"]
SPECIALS = ["plain", "duplicates", "nan in x", "inf in y", "subnormal x", "zero x"]


def pcg32(count):
    """The first outputs of PCG32 (O'Neill 2014) with state 1 and increment 1442695040888963407."""
    multiplier = np.uint64(6364136223846793005)
    with np.errstate(over="ignore"):
        powers = np.concatenate([np.ones(1, "u8"), np.full(count - 1, multiplier).cumprod()])
        sums = np.concatenate([np.zeros(1, "u8"), powers[:-1].cumsum()])
        state = powers + np.uint64(1442695040888963407) * sums
        shifted = (((state >> np.uint64(18)) ^ state) >> np.uint64(27)).astype("u4")
    turn = (state >> np.uint64(59)).astype("u4")
    return (shifted >> turn) | (shifted << ((np.uint32(32) - turn) & np.uint32(31)))


def base(shape):
    """Samples [B, D], targets [N, D] and noise [N], all in [-8, 8)."""
    B, N, D = shape
    numbers = (pcg32(B * D + N * D + N).view("i4") >> 8).astype("f4") * np.float32(2.0**-20)
    x, y, noise = np.split(numbers, [B * D, B * D + N * D])
    return x.reshape(B, D), y.reshape(N, D), noise


def _special(name, x, y):
    x, y = x.copy(), y.copy()
    if name == "duplicates":
        y = y[np.arange(len(y)) // 3]
    elif name == "nan in x":
        x[2 % len(x), x.shape[1] // 2] = np.nan
    elif name == "inf in y":
        y[3 % len(y), 0] = np.inf
    elif name == "subnormal x":
        x[::2] *= np.float32(2.0**-135)
    elif name == "zero x":
        x[:] = 0
    return x, y


def _heights(name, y, noise):
    dead = np.float32(-np.inf)
    if name == "zero":
        return np.zeros_like(noise)
    if name == "nearest":
        norms = np.zeros(len(y), "f4")
        for d in range(y.shape[1]):
            norms = exact.fma(y[:, d], y[:, d], norms)
        return np.float32(-0.5) * norms
    if name == "huge":
        return noise + np.where(noise > 0, np.float32(1e6), np.float32(-1e6))
    if name == "half dead":
        return np.where(np.arange(len(noise)) % 2 == 0, dead, noise)
    return np.full_like(noise, dead)


def cases(shapes=SHAPES):
    """(name, x, y, h) of each case."""
    for shape in shapes:
        x, y, noise = base(shape)
        for special in SPECIALS:
            x_case, y_case = _special(special, x, y)
            for heights in HEIGHTS:
                name = f"{shape}, {special}, {heights}"
                yield name, x_case, y_case, _heights(heights, y_case, noise)


def _signed_zeros(x, y, noise):
    """Live scores are zeros of either sign; the lowest index wins, with the sign of its own."""
    heights = np.where(np.arange(len(y)) % 3 == 2, np.float32(-0.0), np.float32(-1.0))
    heights[-16:] = -1.0  # the only +0 stands alone in its group of eight, behind many -0
    heights[-1] = 0.0
    return np.full_like(x, 1e-30), -np.abs(y) * np.float32(1e-30), heights


def _not_numbers(x, y, noise):
    """NaN in x, y and h, Inf in x and y: inf - inf comes up, and +inf wins."""
    x, y, h, N = x.copy(), y.copy(), noise.copy(), len(y)
    x[len(x) // 2, -1] = np.nan
    x[len(x) // 3] = np.inf
    y[: N // 4, 0] = np.nan
    y[N // 3] = -np.inf
    h[N // 2 :: 7] = np.nan
    h[-1] = np.inf
    return x, y, h


def _dead_behind_nan(x, y, noise):
    """No score above -inf; the first number stands behind NaNs, or nowhere."""
    x, h = x.copy(), np.full_like(noise, -np.inf)
    h[: 2 * len(y) // 3] = np.nan
    x[len(x) // 2] = np.nan
    return x, y, h


def _infinite_heights(x, y, noise):
    h = noise.copy()
    h[len(y) // 2 :: 5] = np.inf
    return x, y, h


# What the golden file does not hold: name -> (shape, how to spoil the base case).
HARD = {
    "no dimension": ((5, 9, 0), lambda x, y, noise: (x, y, noise)),
    "whole panels": ((128, 256, 15), lambda x, y, noise: (x, y, noise)),
    "over panels": ((130, 1100, 17), lambda x, y, noise: (x, y, noise)),
    "many duplicates": ((1030, 640, 5), lambda x, y, n: (x, y[np.arange(640) // 2 % 128], n * 0)),
    "signed zeros": ((15, 200, 3), _signed_zeros),
    "not numbers": ((35, 300, 9), _not_numbers),
    "dead behind nan": ((21, 390, 6), _dead_behind_nan),
    "nothing but nan": ((12, 150, 4), lambda x, y, noise: (x, y, noise * np.float32(np.nan))),
    "infinite heights": ((17, 260, 12), _infinite_heights),
    "subnormal scores": (
        (50, 140, 21),
        lambda x, y, n: (x * n.dtype.type(1e-22), y * n.dtype.type(1e-22), n * 0),
    ),
}


def hard_case(name, dtype="f4"):
    """x, y, h of a case of HARD."""
    shape, spoil = HARD[name]
    return tuple(np.ascontiguousarray(a, dtype=dtype) for a in spoil(*base(shape)))

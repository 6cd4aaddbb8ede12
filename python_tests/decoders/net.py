# SPDX-License-Identifier: Apache-2.0
"""The picture networks again, in plain NumPy, from the text of csrc/common/net.h alone.

Slow: every fused multiply-add is made of doubles. Activations are [h, w, C] float32.
"""

from __future__ import annotations

import numpy as np

f32 = np.float32
COLOUR = np.array(
    [
        [3**-0.5, 3**-0.5, 3**-0.5],
        [2**-0.5, 0, -(2**-0.5)],
        [6**-0.5, -2 * 6**-0.5, 6**-0.5],
    ],
    f32,
)


def fma(a, b, c):
    """One rounding of a b + c, float32: the exact sum to double, to odd, and that to float."""
    product = np.float64(a) * np.float64(b)  # exact: 48 bits
    c = np.float64(c)
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)  # what the sum lost, exactly
    total, rest = np.broadcast_arrays(total, rest)
    even = (np.array(total).view(np.int64) & 1) == 0
    away = np.where(rest > 0, np.inf, -np.inf)
    return np.where((rest != 0) & even, np.nextafter(total, away), total).astype(f32)


def leaky(v):
    return np.maximum(v, f32(0.1) * v)


def dense(x, weight, bias, stride=1):
    """Kernel 1 x 1, or 3 x 3 with a border of zeros."""
    kernel = weight.shape[2]
    h, w = x.shape[0] // stride, x.shape[1] // stride
    border = kernel // 2
    x = np.pad(x, ((border, border), (border, border), (0, 0)))
    s = np.zeros((h, w, len(weight)), f32)
    for ky in range(kernel):
        for kx in range(kernel):
            seen = x[ky : ky + stride * h : stride, kx : kx + stride * w : stride]
            for c in range(x.shape[2]):
                s = fma(seen[:, :, c, None], weight[:, c, ky, kx], s)
    return s if bias is None else s + bias


def transform_input(d):
    a, b, e, f = fma(f32(-4), d[2], d[4]), fma(f32(-4), d[1], d[3]), d[4] - d[2], d[3] - d[1]
    return np.stack(
        [
            fma(f32(4), d[0], fma(f32(-5), d[2], d[4])),
            a + b,
            a - b,
            fma(f32(2), f, e),
            fma(f32(-2), f, e),
            fma(f32(4), d[1], fma(f32(-5), d[3], d[5])),
        ]
    )


def transform_kernel(g):
    a, b, c = g
    first = [a / 4, -((a + b) + c) / 6, -((a - b) + c) / 6]
    return np.stack([*first, ((a + 2 * b) + 4 * c) / 24, ((a - 2 * b) + 4 * c) / 24, c])


def transform_output(m):
    s, d, S, D = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return np.stack(
        [(m[0] + s) + S, fma(f32(2), D, d), fma(f32(4), S, s), fma(f32(8), D, d) + m[5]]
    )


def both(transform, x):
    """On the columns of x [rows, columns, ...], then on the rows of what came out."""
    return transform(transform(x).swapaxes(0, 1)).swapaxes(0, 1)


def conv3(x, weight, bias):
    h, w, C = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    tiles = [(i, j) for i in range(0, h, 4) for j in range(0, w, 4)]
    d = np.stack([padded[i : i + 6, j : j + 6] for i, j in tiles], 2)  # [6, 6, tiles, C]
    V = both(transform_input, d)
    U = both(transform_kernel, weight.astype(np.float64).transpose(2, 3, 0, 1)).astype(f32)
    M = np.zeros((6, 6, len(tiles), len(weight)), f32)
    for c in range(C):
        M = fma(V[:, :, :, c, None], U[:, :, None, :, c], M)
    Y = both(transform_output, M)
    out = np.empty((h, w, len(weight)), f32)
    for t, (i, j) in enumerate(tiles):
        out[i : i + 4, j : j + 4] = Y[:, :, t]
    return out + bias


class Weights:
    """Arrays of a network by name."""

    def __init__(self, arrays):
        self.arrays = {name: np.asarray(a, f32) for name, a in arrays.items()}

    def __call__(self, name):
        return self.arrays[name + ".weight"], self.arrays[name + ".bias"]

    def blocks(self, x, name, begin):
        """Leaky of x behind the residual blocks, and the number of the layer behind them."""
        while f"{name}.{begin}.first.weight" in self.arrays:
            inner = leaky(conv3(x, *self(f"{name}.{begin}.first")))
            x = x + conv3(inner, *self(f"{name}.{begin}.second"))
            begin += 1
        return leaky(x), begin + 1


def unshuffle(planes, n):
    """[3, H, W] to [H / n, W / n, 3 n n]."""
    C, H, W = planes.shape
    parts = planes.reshape(C, H // n, n, W // n, n)
    return parts.transpose(1, 3, 0, 2, 4).reshape(H // n, W // n, C * n * n)


def shuffle(x, n):
    """[h, w, C n n] to [h n, w n, C]."""
    h, w, channels = x.shape
    C = channels // (n * n)
    parts = x.reshape(h, w, C, n, n).transpose(0, 3, 1, 4, 2)
    return parts.reshape(h * n, w * n, C)


def analysis(arrays, rgb):
    """Latents [M, h, w] of a picture [H, W, 3]."""
    weights = Weights(arrays)
    pad = [(0, -size % 64) for size in rgb.shape[:2]]
    v = np.pad(rgb, (*pad, (0, 0)), "edge").astype(f32) - f32(128)
    rows = [(row[0] * v[..., 0] + row[1] * v[..., 1]) + row[2] * v[..., 2] for row in COLOUR]
    planes = np.stack(rows) / f32(64)
    x = conv3(unshuffle(planes, 8), *weights("net.1"))
    x, layer = weights.blocks(x, "net", 2)
    x = dense(x, *weights(f"net.{layer}"), stride=2)
    x, layer = weights.blocks(x, "net", layer + 1)
    f = conv3(x, *weights(f"net.{layer}"))
    linear = dense(unshuffle(planes, 16), weights.arrays["klt.weight"], None)
    return (f32(64) * (linear + f)).transpose(2, 0, 1)


def synthesis(arrays, latents, log2_step):
    """Features [2 h, 2 w, C], and planes [3, 16 h, 16 w] in units of 64."""
    weights = Weights(arrays)
    x = latents.transpose(1, 2, 0).astype(f32) / f32(64)
    t = np.full((*x.shape[:2], 1), 2 * (log2_step - 8), f32)
    g = conv3(np.concatenate([x, t], 2), *weights("coarse.0"))
    g, layer = weights.blocks(g, "coarse", 1)
    features = shuffle(dense(g, *weights(f"coarse.{layer}")), 2)
    y, layer = weights.blocks(features, "fine", 0)
    branch = shuffle(conv3(y, *weights(f"fine.{layer}")), 8)
    linear = shuffle(dense(x, weights.arrays["klt.weight"], None), 16)
    planes = (linear + branch).transpose(2, 0, 1)
    if "filter.see.weight" in weights.arrays:
        known = shuffle(dense(y, weights.arrays["filter.know.weight"], None), 4)
        seen = known + conv3(unshuffle(planes, 2), *weights("filter.see"))
        z, layer = weights.blocks(seen, "filter.body", 0)
        planes = planes + shuffle(conv3(z, *weights(f"filter.body.{layer}")), 2).transpose(2, 0, 1)
    return features, planes


def between(values, axis):
    """Eight times as many values along an axis, each between two positions."""
    n = values.shape[axis]
    at = np.maximum(0, 2 * np.arange(8 * n) - 7)
    low, share = at // 16, (at % 16 / f32(16)).astype(f32)
    share = share.reshape([-1 if k == axis else 1 for k in range(3)])
    high = np.minimum(low + 1, n - 1)
    return values.take(low, axis) * (f32(1) - share) + values.take(high, axis) * share


def perception(arrays, features, x0, noise, realism):
    """Planes blended with the head's: x0 [3, H, W], noise (n8 [n, H/8, W/8], n1 [m, H, W])."""
    weights, r = Weights(arrays), f32(realism)
    n8, n1 = (n.transpose(1, 2, 0) for n in noise)
    hidden = conv3(np.concatenate([features, n8], 2), *weights("trunk.0"))
    hidden, _ = weights.blocks(hidden, "trunk", 1)
    s = shuffle(conv3(hidden, *weights("residual")), 8)
    gain = between(between(dense(hidden, *weights("gain")), 1), 0)
    base = x0.transpose(1, 2, 0)
    joined = np.concatenate([s, base, gain * n1], 2)
    texture = s + conv3(leaky(conv3(joined, *weights("fine"))), *weights("out"))
    x1 = base + texture
    d = x1 - base
    blended = base + r * d if r < 0.5 else x1 - d * (f32(1) - r)
    return blended.transpose(2, 0, 1)


def picture(planes):
    """uint8 [H, W, 3] of planes in units of 64."""
    p = f32(64) * planes
    rgb = [(COLOUR[0, j] * p[0] + COLOUR[1, j] * p[1]) + COLOUR[2, j] * p[2] for j in range(3)]
    return np.rint((np.stack(rgb, 2) + f32(128)).clip(0, 255)).astype(np.uint8)

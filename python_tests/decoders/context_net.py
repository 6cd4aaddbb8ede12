# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the context model, from docs/format.md and docs/coding.md alone.

Whole planes in NumPy int64, phase by phase; nothing of otcuda. Slow and short.
"""

from __future__ import annotations

import numpy as np
from decoders.range64 import Decoder, require


def clip(v, limit=127):
    return np.minimum(np.maximum(v, -limit), limit)


def rounded(v, shift):
    n = shift.astype(np.int64)[:, None, None]
    return np.where(n == 0, v, (v + (1 << np.maximum(n - 1, 0))) >> n)


def act(v, shift):
    return clip(rounded(np.maximum(v, v >> 3), shift))


def conv(x, weight, dilation=1):
    """Planes [inputs, h, w] through kernels [outputs, inputs, side, side]."""
    side = weight.shape[2]
    reach = dilation * (side // 2)
    h, w = x.shape[1:]
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    total = np.zeros((len(weight), h, w), np.int64)
    for a in range(side):
        for b in range(side):
            seen = padded[:, a * dilation :, b * dilation :][:, :h, :w]
            total += np.tensordot(weight[:, :, a, b].astype(np.int64), seen, 1)
    return total


def phase_of(i, j):
    if (i + j) % 2 == 1:
        return 4
    if i % 2 == 1:
        return 3
    return {(0, 0): 0, (2, 2): 1}.get((i % 4, j % 4), 2)


class ContextModel:
    """The network of a model, on one grid, for one k."""

    def __init__(self, arrays, k, h, w):
        self.arrays = {name: np.asarray(a).astype(np.int64) for name, a in arrays.items()}
        self.edges = [int(e) for e in self.arrays["edges"]]
        self.k, self.h, self.w = k, h, w
        self.bits = int(self.arrays.get("mean_bits", [4])[0])
        self.centroids = self.arrays.get("centroids", np.zeros(64, np.int64))
        self.symbol_limit = (1536 >> (self.bits - 4)) - 1
        self.value = np.zeros((self.edges[-1], h, w), np.int64)
        self.known = np.zeros((h, w), bool)

    def layer(self, name, x, dilation=1):
        bias = self.arrays[f"{name}.bias"][:, None, None]
        return conv(x, self.arrays[f"{name}.weight"], dilation) + bias

    def value16(self):
        """Values in sixteenths of a step."""
        more = self.bits - 4
        return self.value if more == 0 else (self.value + 2 ** (more - 1)) >> more

    def features(self):
        """The planes f of every position, from the values known at the start of a phase."""
        value = np.where(self.known, self.value16(), 0)
        first, inputs = self.edges[1], self.arrays["near.weight"].shape[1]
        copies = (inputs - self.edges[-1] - 2) // first
        x = np.concatenate(
            [
                clip(value),
                *[
                    clip((value[:first] + 2 ** (2 * n - 1)) >> (2 * n))
                    for n in range(1, copies + 1)
                ],
                np.where(self.known, 16, 0)[None],
                np.full((1, self.h, self.w), clip(self.k - 160)),
            ]
        )
        sums = self.layer("near", x) + conv(x, self.arrays["far.weight"], 4)
        a = act(sums, self.arrays["near.shift"])
        return act(self.layer("deep", a), self.arrays["deep.shift"])

    def group(self, f, phase, g):
        """Mu and t of the channels of a group, [n, h, w]."""
        first, last = self.edges[g], self.edges[g + 1]
        x = np.concatenate([f, clip(self.value16()[:first])])
        m = act(self.layer(f"mix.{g}", x), self.arrays[f"mix.{g}.shift"])
        v = rounded(self.layer(f"out.{g}", m), self.arrays[f"out.{g}.shift"])
        o = clip(v, 8191)
        n = last - first
        offset = self.arrays["offset"][phase, first:last, None, None]
        t = (o[n:] + offset - 3 * self.k + 8) >> 4
        return o[:n], np.minimum(np.maximum(t, 0), 63)


def walk(model, off, symbol_of):
    """symbol_of(c, i, j, mu, t) for every symbol, in the order of the stream."""
    for phase in range(5):
        positions = [
            (i, j) for i in range(model.h) for j in range(model.w) if phase_of(i, j) == phase
        ]
        f = model.features()
        for g in range(len(model.edges) - 1):
            mu, t = model.group(f, phase, g)
            for i, j in positions:
                for n, c in enumerate(range(model.edges[g], model.edges[g + 1])):
                    if not off[c]:
                        mean, scale = int(mu[n, i, j]), int(t[n, i, j])
                        symbol = symbol_of(c, i, j, mean, scale)
                        towards = int(np.sign(symbol)) * int(model.centroids[scale])
                        model.value[c, i, j] = 2**model.bits * symbol - towards + mean
        for i, j in positions:
            model.known[i, j] = True


def read_symbol(decoder, row, t, limit):
    P = int(row.sum()).bit_length() - 1
    R = (int((row > 0).sum()) - 2) // 2
    slot = decoder.slot(P)
    start = column = 0
    while start + row[column] <= slot:
        start += int(row[column])
        column += 1
    decoder.take(start, int(row[column]), P)
    if column < 31:
        return (column + 1) // 2 * (1 if column % 2 == 1 else -1)
    n = max(0, t // 6 - 5)
    sign = -1 if decoder.bits(1) else 1
    v = decoder.exp_golomb() << n
    magnitude = v + decoder.bits(n) + R + 1
    require(magnitude <= limit)
    return sign * magnitude


def decode(arrays, payload, k, h, w, off=None):
    """Symbols and values [M, h, w]."""
    model = ContextModel(arrays, k, h, w)
    off = np.zeros(model.edges[-1], bool) if off is None else off
    symbols = np.zeros_like(model.value)
    decoder = Decoder(payload)

    def read(c, i, j, _mean, t):
        row = model.arrays["tables"][t]
        symbols[c, i, j] = read_symbol(decoder, row, t, model.symbol_limit)
        return int(symbols[c, i, j])

    walk(model, off, read)
    decoder.finish()
    return symbols, model.value


def nearest(arrays, u, k):
    """Symbols, values and scale indices [M, h, w] of latents u in steps, rounded."""
    model = ContextModel(arrays, k, *u.shape[1:])
    symbols, scales = np.zeros(u.shape, np.int64), np.zeros(u.shape, np.int64)

    def choose(c, i, j, mean, t):
        scales[c, i, j] = t
        residual = float(u[c, i, j]) - mean / 2**model.bits
        symbols[c, i, j] = clip(int(np.floor(residual + 0.5)), model.symbol_limit)
        return int(symbols[c, i, j])

    walk(model, np.zeros(len(u), bool), choose)
    return symbols, model.value, scales

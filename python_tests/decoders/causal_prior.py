# SPDX-License-Identifier: Apache-2.0
"""Second decoder of maps by a causal prior, written from docs/coding.md alone: plain integers."""

from __future__ import annotations

from decoders.range64 import Decoder


def integer_sqrt(v: int) -> int:
    root = 0
    for b in range(63, -1, -1):
        longer = root | 1 << b
        root = longer if longer * longer <= v else root
    return root


def exp2_table() -> list[int]:
    """floor-like 2^(24 - j / 256): a product of roots of 1/2 in Q62, one a bit of j."""
    roots = [1 << 61]
    for _ in range(8):
        roots.append(integer_sqrt(roots[-1] << 62))
    table = []
    for j in range(256):
        product = 1 << 62
        for k in range(1, 9):
            if j >> (8 - k) & 1:
                product = product * roots[k] >> 62
        table.append(product >> 38)
    return table


EXP2 = exp2_table()


def frequencies(logs: list[int], P: int) -> list[int]:
    falls = [min(max(logs) - t, 6143) for t in logs]
    v = [EXP2[d % 256] >> d // 256 for d in falls]
    q = ((2**P - len(v)) << 32) // sum(v)
    f = [1 + (each * q >> 32) for each in v]
    f[v.index(max(v))] += 2**P - sum(f)
    return f


def foretell(rows, y, x, w, codes, neighbours, layers, P):
    values = []
    for dy, dx in neighbours:
        inside = y + dy >= 0 and 0 <= x + dx < w
        values += codes[rows[y + dy][x + dx] if inside else len(codes) - 1]
    for k, (weights, bias, multiplier, shift) in enumerate(layers):
        last = k + 1 == len(layers)
        low, high = (-(2**20), 2**20) if last else (0, 127)
        scaled = []
        for row, b, m in zip(weights, bias, multiplier, strict=True):
            y_o = b + sum(a * i for a, i in zip(row, values, strict=True))
            scaled.append(min(max((y_o * m + 2 ** (shift - 1)) >> shift, low), high))
        values = scaled
    return frequencies(values, P)


def decode(message, h, w, codes, neighbours, layers, P):
    decoder = Decoder(message)
    rows = [[0] * w for _ in range(h)]
    for y in range(h):
        for x in range(w):
            f = foretell(rows, y, x, w, codes, neighbours, layers, P)
            slot, c, s = decoder.slot(P), 0, 0
            while slot >= c + f[s]:
                c, s = c + f[s], s + 1
            decoder.take(c, f[s], P)
            rows[y][x] = s
    return rows

# SPDX-License-Identifier: Apache-2.0
"""Second decoder of adaptive maps, written from docs/coding.md alone: plain integers, slow."""

from __future__ import annotations

import math

from decoders.range64 import Decoder

STRETCH = [int(256 * math.log((2 * i + 1) / (8191 - 2 * i))) for i in range(4096)]
SQUASH = [min(max(int(65536 / (1 + math.exp(-(i - 2048) / 256))), 32), 65504) for i in range(4096)]


def context(neighbours, bits, rows, y, x, w):
    kept = bits if len(neighbours) == 1 else max(1, min(bits, 8 // max(len(neighbours), 1)))
    number = 0
    for dy, dx in neighbours:
        inside = y + dy >= 0 and 0 <= x + dx < w
        symbol = rows[y + dy][x + dx] if inside else 0
        number = number << kept | symbol >> (bits - kept)
    return number


def counters_of(flat, bits, contexts):
    """A stored list as {(number, node): [a, b]} for each context."""
    counters, at = [], 0
    for neighbours in contexts:
        count = len(neighbours)
        kept = count * (bits if count == 1 else max(1, min(bits, 8 // max(count, 1))))
        counters.append({})
        for number in range(1 << kept):
            for node in range(1 << bits):
                counters[-1][number, node] = list(flat[at : at + 2])
                at += 2
    assert at == len(flat)
    return counters


def decode(message, h, w, bits, contexts, rates=(4, 7), learnt=None):
    """The map, by a model that has seen nothing, or by the lists `learnt` of one that has."""
    decoder, N = Decoder(message), len(contexts)
    counters = [{} for _ in contexts]
    weights = [[min(65536, (3 << 15) // N)] * N for _ in range(bits)]
    if learnt is not None:
        counters = counters_of(learnt[0], bits, contexts)
        weights = [list(learnt[1][d * N : (d + 1) * N]) for d in range(bits)]
    rows = [[0] * w for _ in range(h)]
    for y in range(h):
        for x in range(w):
            at = [context(c, bits, rows, y, x, w) for c in contexts]
            node = 1
            for depth in range(bits):
                found = [counters[j].setdefault((at[j], node), [32768, 32768]) for j in range(N)]
                chances = [(a + b) >> 1 for a, b in found]
                stretched = [STRETCH[p >> 4] for p in chances]
                mixed = sum(u * s for u, s in zip(weights[depth], stretched, strict=True)) >> 16
                p = chances[0] if N == 1 else SQUASH[min(max(mixed + 2048, 0), 4095)]
                p = min(max(p, 32), 65504)
                bit = decoder.bit(p, 16)
                for counter in found:
                    for k, rate in enumerate(rates):
                        counter[k] += (65535 * bit - counter[k]) >> rate
                for j in range(N):
                    weights[depth][j] += (65536 * bit - p) * stretched[j] >> 16
                node = 2 * node + bit
            rows[y][x] = node - (1 << bits)
    decoder.finish()
    return rows

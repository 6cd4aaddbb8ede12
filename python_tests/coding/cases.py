# SPDX-License-Identifier: Apache-2.0
"""Tables and messages that are the same in every version of NumPy: numbers out of SHAKE-256."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from otcuda.coding import Tables


def numbers(seed: str, count: int, below: int) -> list[int]:
    data = hashlib.shake_256(seed.encode()).digest(8 * count)
    return [int.from_bytes(data[8 * k : 8 * k + 8], "little") % below for k in range(count)]


def spread_weights(seed: str, n: int, octaves: int = 24) -> list[int]:
    """Weights from 1 to 2^octaves, equal ones among them, some zero."""
    shifts, mantissas = numbers(seed + "s", n, octaves), numbers(seed + "m", n, 4)
    weights = [(4 + m << s) >> 2 for s, m in zip(shifts, mantissas, strict=True)]
    return [
        0 if m == 3 and s < 4 else w for w, m, s in zip(weights, mantissas, shifts, strict=True)
    ]


def holed_frequencies(seed: str, P: int, n: int) -> list[int]:
    """Kept symbols with escaped ones between them, at both ends too."""
    total, f = 2**P - 1, [0] * n
    for s, take in zip(numbers(seed + "h", n, n), numbers(seed + "t", n, 9), strict=True):
        if take > 5 and f[s] == 0 and total > 8 and 0 < s < n - 1:
            f[s] = take - 5
            total -= f[s]
    f[n // 2] += total
    return f


def trimmed(weights: list[int], P: int) -> list[int]:
    """Without what is under half a slot, the rule when the messages were pinned."""
    W, most = sum(weights), max(weights)
    return [w if w << (P + 1) >= W or w == most else 0 for w in weights]


def symbols_of(tables: Tables, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols that follow the tables, escapes among them, and their index."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, tables.count, length)
    slots = rng.integers(0, 2**tables.precision, length)
    # One search for all tables: each stands above the one before it.
    above = np.arange(tables.count, dtype=np.int64)[:, None] << tables.precision
    cumulative = np.cumsum(tables.frequencies, 1, dtype=np.int64) + above
    found = np.searchsorted(cumulative.reshape(-1), slots + above[index, 0], "right")
    return found - index * tables.symbols + tables.low, index


@dataclass(frozen=True)
class Message:
    name: str
    P: int
    T: int
    n: int
    escape: bool
    low: int
    length: int
    holes: bool = False
    beyond: int = 0  # every so many symbols lies outside the alphabet

    @functools.cache  # noqa: B019 - the cases live as long as the tests
    def tables(self) -> Tables:
        rows = range(self.T)
        if self.holes:
            frequencies = [holed_frequencies(f"{self.name} {t}", self.P, self.n) for t in rows]
            return Tables(frequencies, self.P, True, self.low)
        weights = [spread_weights(f"{self.name} {t}", self.n) for t in rows]
        for row in weights:
            row[self.n // 3] += 1
        if self.escape:
            weights = [trimmed(row, self.P) for row in weights]
        return Tables.from_weights(weights, self.P, self.escape, self.low)

    def index(self) -> np.ndarray:
        return np.array(numbers(self.name + " index", self.length, self.T), np.int32)

    def symbols(self, tables: Tables) -> np.ndarray:
        """Drawn as the tables say, by slot, but for those that lie beyond."""
        slots = numbers(self.name + " slots", self.length, 2**self.P)
        anywhere = numbers(self.name + " anywhere", self.length, 2**32)
        cumulative = tables.frequencies.astype(np.int64).cumsum(1)
        symbols = []
        for i, (t, slot) in enumerate(zip(self.index(), slots, strict=True)):
            s = int(np.searchsorted(cumulative[t], slot, "right"))
            if s == self.n:  # the escape's slot: one without a frequency, if there is one
                s = int(tables.frequencies[t].argmin())
            x = self.low + s
            if self.beyond and i % self.beyond == 0:
                x = anywhere[i] - 2**31
                x = x >> (i % 31) if i % 2 else self.low + self.n + i
            symbols.append(x)
        return np.array(symbols, np.int64).astype(np.int32)


MESSAGES = [
    Message("empty", 12, 1, 256, True, 0, 0),
    Message("one", 12, 1, 256, True, 0, 1),
    Message("two", 12, 2, 256, True, -128, 2),
    Message("three", 16, 1, 256, False, 0, 3),
    Message("four", 12, 3, 17, False, 0, 4),
    Message("seven", 8, 3, 17, True, -8, 7),
    Message("eight", 9, 1, 2, False, 0, 8),
    Message("nine", 10, 2, 3, False, 0, 9),
    Message("P1", 1, 1, 2, False, 0, 100),
    Message("P1 escape", 1, 2, 5, True, 0, 100),
    Message("P2", 2, 3, 4, False, 0, 100),
    Message("P3 escape", 3, 3, 40, True, 0, 100),
    Message("P5", 5, 4, 32, False, 7, 100),
    Message("P8", 8, 64, 256, False, 0, 300),
    Message("P8 escape", 8, 64, 256, True, -128, 300),
    Message("P11", 11, 64, 256, True, -128, 300),
    Message("P12", 12, 64, 256, True, -128, 1500),
    Message("P12 full", 12, 64, 256, False, -128, 1500),
    Message("P14", 14, 64, 256, True, -128, 1500),
    Message("P16", 16, 64, 256, True, -128, 1500),
    Message("P16 full", 16, 64, 256, False, -128, 1500),
    Message("lone", 16, 1, 1, False, 5, 50),
    Message("lone escape", 16, 1, 1, True, 5, 50),
    Message("lone beyond", 12, 1, 1, True, 5, 50, beyond=3),
    Message("holes P8", 8, 8, 100, True, 0, 400, holes=True),
    Message("holes P10", 10, 8, 256, True, 0, 400, holes=True),
    Message("holes P12", 12, 64, 256, True, -128, 400, holes=True),
    Message("holes P14", 14, 8, 256, True, 0, 400, holes=True),
    Message("holes P16", 16, 8, 256, True, 0, 400, holes=True),
    Message("holes beyond", 12, 8, 256, True, -50, 400, holes=True, beyond=2),
    Message("beyond", 12, 8, 16, True, -8, 400, beyond=5),
    Message("all beyond", 12, 2, 16, True, -8, 200, beyond=1),
    Message("highest", 12, 2, 16, True, 2**31 - 16, 200, beyond=7),
    Message("lowest", 12, 2, 16, True, -(2**31), 200, beyond=7),
    Message("u16 P12", 12, 1, 1024, True, 0, 500),
    Message("u16 P16", 16, 2, 5000, True, 0, 500),
    Message("u16 whole", 16, 1, 65536, True, 0, 40),
    Message("i16 whole", 16, 1, 65536, False, -32768, 40),
    Message("many tables", 10, 3000, 4, False, 0, 500),
    Message("long", 12, 16, 64, True, -32, 5000),
]

WIDE = [  # for range64 only
    Message("P17", 17, 3, 300, True, -100, 600, beyond=40),
    Message("P20", 20, 2, 1000, True, -500, 600),
    Message("P24", 24, 3, 256, True, -128, 600, beyond=100),
    Message("P24 full", 24, 2, 70, False, 5, 300),
    Message("P24 lone", 24, 1, 1, False, 5, 50),
    Message("P22 u16", 22, 1, 65536, True, 0, 100),
    Message("holes P18", 18, 4, 100, True, 0, 400, holes=True),
    Message("holes P24", 24, 4, 256, True, -9, 400, holes=True),
]

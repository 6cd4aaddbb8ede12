# SPDX-License-Identifier: Apache-2.0
"""A second decoder of tables, range64 and the short container, from docs/coding.md alone.

Plain integers, no NumPy, nothing of otcuda. Slow and short.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
from dataclasses import dataclass, field

DTYPE_RANGES = [
    (0, 2**8 - 1),
    (-(2**7), 2**7 - 1),
    (0, 2**16 - 1),
    (-(2**15), 2**15 - 1),
    (0, 2**32 - 1),
    (-(2**31), 2**31 - 1),
    (0, 2**64 - 1),
    (-(2**63), 2**63 - 1),
]


class DamagedError(Exception):
    """Bytes that no encoder writes."""


def require(holds: bool) -> None:
    if not holds:
        raise DamagedError


# --- tables ---------------------------------------------------------------------------------------


@dataclass
class Tables:
    precision: int
    escape: bool
    low: int
    frequencies: list[list[int]]
    starts: list[list[int]] = field(init=False)

    def __post_init__(self):
        self.starts = [list(itertools.accumulate(row, initial=0)) for row in self.frequencies]

    def find(self, t: int, slot: int) -> tuple[int, int, int]:
        """Number, start and frequency of the symbol with c <= slot < c + f."""
        s = bisect.bisect_right(self.starts[t], slot) - 1
        return s, self.starts[t][s], self.frequencies[t][s]


def read_tables(data: bytes) -> Tables:
    require(len(data) >= 16 and data[0] == 1 and data[2] in (0, 1) and data[3] == 0)
    P, escape = data[1], data[2] == 1
    low = int.from_bytes(data[4:8], "little", signed=True)
    T, n = int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little")
    size = 2 if P <= 16 else 4
    require(1 <= P <= 24 and 1 <= T <= 65536 and 1 <= n <= 65536 and T * n <= 2**22)
    require(low + n - 1 < 2**31 and len(data) == 16 + size * T * n)
    flat = [int.from_bytes(data[i : i + size], "little") for i in range(16, len(data), size)]
    if P == 16 and n == 1 and not escape:
        flat = [f or 65536 for f in flat]
    rows = [flat[t * n : (t + 1) * n] for t in range(T)]
    for row in rows:
        require(sum(row) == 2**P - escape and (escape or min(row) > 0))
    return Tables(P, escape, low, rows)


def log2_q56(v: int) -> int:
    e = v.bit_length() - 1
    m, bits = v << (63 - e), 0
    for _ in range(56):
        q = m * m
        bits = bits << 1 | q >> 127
        m = q >> 64 if q >> 127 else q >> 63
    return (e << 56) + bits


def quantise(weights: list[int], P: int, escape: bool) -> list[int]:
    n, W = len(weights), sum(weights)
    kept = list(range(n))
    if escape:
        heaviest = max(kept, key=lambda s: (weights[s], -s))
        b = n.bit_length()
        kept = [s for s in kept if 2 * b * weights[s] << P >= 3 * W or s == heaviest]
        kept = sorted(kept, key=lambda s: (-weights[s], s))[: 2**P - 1]
    f = [0] * n
    for s in kept:
        f[s] = 1
    log2 = functools.cache(log2_q56)
    best = [(-weights[s] * log2(2), s) for s in kept]  # the largest gain first, then the lowest s
    heapq.heapify(best)
    for _ in range(2**P - escape - len(kept)):
        s = best[0][1]
        f[s] += 1
        heapq.heapreplace(best, (-weights[s] * (log2(f[s] + 1) - log2(f[s])), s))
    return f


# --- range64 --------------------------------------------------------------------------------------


class Decoder:
    def __init__(self, message: bytes):
        self.message, self.at, self.range = message, 8, 2**64 - 1
        self.code = int.from_bytes(message[:8].ljust(8, b"\0"), "big")

    def renormalise(self) -> None:
        if self.range < 2**32:
            more = self.message[self.at : self.at + 4].ljust(4, b"\0")
            self.at += 4
            self.code = (self.code << 32) % 2**64 | int.from_bytes(more, "big")
            self.range <<= 32

    def slot(self, P: int) -> int:
        slot = self.code // (self.range >> P)
        require(slot < 2**P)
        return slot

    def take(self, c: int, f: int, P: int) -> None:
        r = self.range >> P
        self.code -= r * c
        self.range = r * f
        self.renormalise()

    def uniform(self, K: int) -> int:
        r = self.range // K
        value = self.code // r
        require(value < K)
        self.code -= r * value
        self.range = r
        self.renormalise()
        return value

    def bits(self, k: int) -> int:
        value = 0
        while k > 0:
            part = k % 16 or 16
            k -= part
            slot = self.slot(part)
            self.take(slot, 1, part)
            value = value << part | slot
        return value

    def bit(self, p1: int, P: int) -> int:
        slot = self.slot(P)
        self.take(*((0, p1) if slot < p1 else (p1, 2**P - p1)), P)
        return int(slot < p1)

    def exp_golomb(self) -> int:
        L = 0
        while self.bits(1) == 0:
            L += 1
            require(L < 64)
        return (1 << L) + self.bits(L) - 1

    def symbol(self, tables: Tables, t: int) -> int:
        row, P, n = tables.frequencies[t], tables.precision, len(tables.frequencies[t])
        slot = self.slot(P)
        if tables.escape and slot == 2**P - 1:
            self.take(slot, 1, P)
            return tables.low + self.escaped(row, n, tables.low)
        s, c, f = tables.find(t, slot)
        self.take(c, f, P)
        return tables.low + s

    def escaped(self, row: list[int], n: int, low: int) -> int:
        s = self.uniform(n + 1)
        if s < n:
            require(row[s] == 0)
            return s
        s = -1 - self.exp_golomb() if self.bits(1) else n + self.exp_golomb()
        require(-(2**31) <= low + s < 2**31)
        return s

    def finish(self) -> None:
        require(self.at >= len(self.message) and not self.message.endswith(b"\0"))


def split(message: bytes, lanes: int) -> list[bytes]:
    sizes, at, parts = [], 0, []
    for _ in range(lanes - 1):
        size, used = read_varint(message[at:])
        sizes.append(size)
        at += used
    for size in sizes:
        require(at + size <= len(message))
        parts.append(message[at : at + size])
        at += size
    return [*parts, message[at:]]


def decode_raw(message: bytes, tables: Tables, index: list[int], lanes: int = 1) -> list[int]:
    decoders = [Decoder(part) for part in split(message, lanes)]
    symbols = [decoders[i % lanes].symbol(tables, t) for i, t in enumerate(index)]
    for decoder in decoders:
        decoder.finish()
    return symbols


# --- torchac's functions --------------------------------------------------------------------------


def decode_float_cdf(cdf: list[list[float]], message: bytes) -> list[int]:
    decoder, symbols = Decoder(message), []
    for row in cdf:
        L = len(row) - 1
        starts = [round(min(max(c, 0.0), 1.0) * (65536 - L)) + j for j, c in enumerate(row)]
        starts[0], starts[L] = 0, 65536
        slot = decoder.slot(16)
        s = next(s for s in range(L) if slot < starts[s + 1])
        decoder.take(starts[s], starts[s + 1] - starts[s], 16)
        symbols.append(s)
    decoder.finish()
    return symbols


# --- the short container --------------------------------------------------------------------------


def read_varint(data: bytes) -> tuple[int, int]:
    value = 0
    for k, byte in enumerate(data[:5]):
        value |= (byte & 127) << 7 * k
        if byte < 128:
            require(byte != 0 or k == 0)
            return value, k + 1
    raise DamagedError


def check(symbols: list[int]) -> int:
    total = 0
    for i, x in enumerate(symbols):
        y = 0x9E3779B1 * i % 2**32
        total += (x + 1) % 2**32 * ((y ^ y >> 15) | 1)
    total %= 2**32
    return (total ^ total >> 16) % 2**16


def decode(blob: bytes, tables: Tables, index: list[int] | None = None) -> list[int]:
    require(len(blob) > 0 and 0xA0 <= blob[0] < 0xB8)
    lanes = 1 << (blob[0] - 0xA0 >> 3)
    n, at = read_varint(blob[1:])
    at += 1
    require(len(blob) >= at + 2)
    index = [0] * n if index is None else index
    require(len(index) == n)
    symbols = decode_raw(blob[at + 2 :], tables, index, lanes)
    least, most = DTYPE_RANGES[blob[0] & 7]
    require(all(least <= x <= most for x in symbols))
    require(check(symbols) == int.from_bytes(blob[at : at + 2], "little"))
    return symbols

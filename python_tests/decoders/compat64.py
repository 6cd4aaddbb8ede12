# SPDX-License-Identifier: Apache-2.0
"""Second decoder of CompressAI's streams, written from docs/coding.md alone: plain integers."""

from __future__ import annotations

import bisect

from decoders.range64 import require


class Decoder:
    def __init__(self, message: bytes):
        self.message, self.at, self.state = message, 0, 0
        self.state = self.word() | self.word() << 32

    def word(self) -> int:
        found = self.message[self.at : self.at + 4]
        require(len(found) == 4)
        self.at += 4
        return int.from_bytes(found, "little")

    def step(self, c: int, f: int, P: int) -> None:
        self.state = f * (self.state >> P) + self.state % 2**P - c
        if self.state < 2**31:
            self.state = self.state << 32 | self.word()

    def part(self) -> int:
        p = self.state % 16
        self.step(p, 1, 4)
        return p

    def value(self, cdf: list[int]) -> int:
        s = bisect.bisect_right(cdf, self.state % 65536) - 1
        self.step(cdf[s], cdf[s + 1] - cdf[s], 16)
        last = len(cdf) - 2
        if s < last:
            return s
        count = self.part()
        require(count <= 9)
        v = sum(self.part() << 4 * k for k in range(count))
        return -(v >> 1) - 1 if v % 2 else last + (v >> 1)


def decode(message, indexes, cdfs, sizes, offsets):
    decoder, symbols = Decoder(message), []
    for t in indexes:
        symbols.append(offsets[t] + decoder.value(cdfs[t][: sizes[t]]))
        require(-(2**31) <= symbols[-1] < 2**31)
    return symbols

# SPDX-License-Identifier: Apache-2.0
"""Second decoder of the long container, written from docs/coding.md alone: plain integers, slow."""

from __future__ import annotations

import zlib

from decoders.range64 import DTYPE_RANGES, DamagedError, Tables, read_varint, require

HEAD, LANES = 32, 32


def number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def weight(i: int) -> int:
    y = 0x9E3779B1 * i % 2**32
    return (y ^ y >> 15) | 1


def side_offset(side: bytes, n: int) -> tuple[int, int]:
    """Offset of an escaped symbol and the bytes it took."""
    w = 1 if n <= 256 else 2
    require(len(side) >= w)
    cap, v = 2 ** (8 * w) - 1, number(side, 0, w)
    if v < cap:
        return v, w
    rest, used = read_varint(side[w:])
    return (-1 - (rest >> 1) if rest & 1 else cap + (rest >> 1)), w + used


def decode_block(
    words: list[int], states: list[int], side: bytes, tables: Tables, index: list[int]
) -> list[int]:
    P, n, symbols = tables.precision, len(tables.frequencies[0]), []
    require(all(x >= 2**16 for x in states))
    for group in range(0, len(index), LANES):
        part = index[group : group + LANES]
        for lane, t in enumerate(part):
            row, slot = tables.frequencies[t], states[lane] % 2**P
            if tables.escape and slot == 2**P - 1:
                offset, used = side_offset(side, n)
                side = side[used:]
                require(not (0 <= offset < n and row[offset] > 0))
                require(-(2**31) <= tables.low + offset < 2**31)
                f, c = 1, slot
            else:
                offset, c, f = tables.find(t, slot)
            symbols.append(tables.low + offset)
            states[lane] = f * (states[lane] >> P) + slot - c
        for lane in range(len(part)):
            if states[lane] < 2**16:
                require(len(words) > 0)
                states[lane] = states[lane] << 16 | words.pop(0)
    require(not words and not side and states == [2**16] * LANES)
    return symbols


def decode(blob: bytes, tables: Tables, index: list[int] | None = None) -> list[int]:
    require(len(blob) >= HEAD and blob[:4] == b"OTAC" and blob[4] == 1 and blob[7] == 5)
    n, size = number(blob, 8, 8), number(blob, 16, 4)
    require(blob[5] < 8 and 32 <= size <= 2**28 and size % 32 == 0)
    blocks = -(-n // size)
    at = HEAD + 12 * blocks
    require(len(blob) >= at and zlib.crc32(blob[:28] + blob[HEAD:at]) == number(blob, 28, 4))
    index = [0] * n if index is None else index
    require(len(index) == n)
    symbols: list[int] = []
    for k in range(blocks):
        count, side, check = (number(blob, HEAD + 12 * k + 4 * j, 4) for j in range(3))
        states = [number(blob, at + 4 * lane, 4) for lane in range(LANES)]
        at += 4 * LANES
        end = at + 2 * count + side
        require(end <= len(blob))
        words = [number(blob, at + 2 * j, 2) for j in range(count)]
        part = index[k * size : (k + 1) * size]
        found = decode_block(words, states, blob[at + 2 * count : end], tables, part)
        require(sum((x + 1) * weight(i) for i, x in enumerate(found)) % 2**32 == check)
        symbols += found
        at = end
        while at % 4 != HEAD % 4:
            require(blob[at : at + 1] == b"\0")
            at += 1
    require(at == len(blob))
    least, most = DTYPE_RANGES[blob[5]]
    require(all(least <= x <= most for x in symbols))
    return symbols


__all__ = ["DamagedError", "decode"]

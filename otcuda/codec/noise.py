# SPDX-License-Identifier: Apache-2.0
"""The noise of the perceptual head, made of a file's payload: every decoder draws the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

FEATURE_STRIDE = 8  # pixels a position of the features
COARSE_NOISE, FINE_NOISE = 4, 4  # noise planes at 1/8 and at full resolution
_BYTES = 4  # a noise value is the sum of so many uniform bytes
_BLOCK = 8  # values of one step of the generator's counter


def noise_seed(payload: bytes) -> int:
    """Seed of a picture's noise, from the bytes of its payload: 128 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(payload, digest_size=16).digest(), "little")


def noise_values(seed: int, shape: Sequence[int], begin: int = 0) -> np.ndarray:
    """Nearly normal numbers (the sum of four uniform bytes) of mean 0 and variance 1, float32.

    Bits of the counter-based Philox4x64-10, a sum of integers and one rounding: the same bits on
    every machine and for every version of NumPy, whose own normal numbers promise neither.

    Args:
        seed: key of the generator, taken modulo 2^128.
        shape: of the result; a longer one begins with the values of a shorter one.
        begin: number of the first value.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
    """
    count, over = math.prod(shape), begin % _BLOCK
    generator = np.random.Philox(key=seed % (1 << 128))
    generator.advance(begin // _BLOCK)
    words = generator.random_raw(-(-(over + count) * _BYTES // 8))
    quads = np.ascontiguousarray(words.astype("<u8")).view("<u4")[over : over + count]
    pairs = (quads & 0x00FF00FF) + (quads >> 8 & 0x00FF00FF)  # bytes 0 + 1 and 2 + 3
    total = ((pairs & 0xFFFF) + (pairs >> 16)).astype(np.int32) - round(_BYTES * 127.5)
    deviation = (_BYTES * (256**2 - 1) / 12) ** 0.5
    return (total.astype(np.float32) * np.float32(1 / deviation)).reshape(shape)


def noise_window(
    seed: int, begin: int, planes: tuple[int, int, int], rows: slice, columns: slice
) -> np.ndarray:
    """A window of noise planes [n, h, w] that begin at a value: [n, rows, columns], float32.

    Args:
        seed: of `noise_seed`.
        begin: number of the first value of the planes.
        planes: their n, h and w.
        rows: of the window.
        columns: of the window.
    """
    n, h, w = planes
    shape = (rows.stop - rows.start, w)
    starts = (begin + (k * h + rows.start) * w for k in range(n))
    window = [noise_values(seed, shape, start)[:, columns] for start in starts]
    return np.ascontiguousarray(np.stack(window))

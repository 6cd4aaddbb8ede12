# SPDX-License-Identifier: Apache-2.0
"""Inputs of the vectors in golden/compat64_v1.json, out of SHAKE-256."""

from __future__ import annotations

from coding.cases import numbers


def compat_case(k: int) -> tuple[list[int], list[int], list[list[int]], list[int], list[int]]:
    """Symbols, indexes, ragged cdfs, sizes, offsets; many symbols outside their alphabets."""
    T, length = 1 + k % 4, (8, 20, 33, 100, 500)[k % 5]
    sizes = [3 + n for n in numbers(f"compat sizes {k}", T, 60)]
    cdfs = []
    for t, size in enumerate(sizes):
        cuts = sorted(set(1 + n for n in numbers(f"compat cdf {k} {t}", size - 2, 65535)))
        cdfs.append([0, *cuts, 65536])
        sizes[t] = len(cdfs[t])
    offsets = [n - 30 for n in numbers(f"compat offsets {k}", T, 60)]
    indexes = numbers(f"compat indexes {k}", length, T)
    wide = numbers(f"compat wide {k}", length, 2**28)
    symbols = [
        offsets[t] + (w % sizes[t] if i % 7 else (w >> i % 28) - 2**27 >> i % 28)
        for i, (t, w) in enumerate(zip(indexes, wide, strict=True))
    ]
    return symbols, indexes, cdfs, sizes, offsets

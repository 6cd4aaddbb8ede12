# SPDX-License-Identifier: Apache-2.0
"""Cells that are due few samples of the pools, or none: masses from samples that nearly fall in.

Balancing counts makes such a cell touch its nearest sample, where its mass is about that of one
sample, however small its weight. The samples that it would win next tell more. docs/transport.md,
section 5.
"""

from __future__ import annotations

import numpy as np

from otcuda._lists import Lists

_RARE = 3.0  # samples that a cell is due, below which it is one ...
_RARE_SHARE = 0.5  # ... if that is less than so much of the mean
_NEAREST, _FEWEST = 8, 4  # samples that tell of a cell
_PRIOR = 4.0  # samples that the growth of a cell is shrunk by, to that of all
_ENTRIES = 1 << 22  # of lists looked at together


def rare_heights(lists: Lists, h: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Heights [N] with those of rare cells put where their mass should be their weight.

    With its height raised by t, a cell wins the samples that miss it by less than t: a count that
    grows as exp(t / g), eq. (7). g is Hill's estimate from the k nearest samples, and the law is
    followed down to the weight. In few dimensions counts fall faster, so such a cell ends below its
    weight; above it would be the dear side, since chi2 takes its mass squared over its weight.
    """
    M = len(lists)
    rare = nu * M < min(_RARE, _RARE_SHARE * M / len(nu))
    if not rare.any():
        return h
    cell, miss = _misses(lists, h, rare)
    order = np.lexsort((miss, cell))
    cell, miss = cell[order], miss[order]
    cells, first, count = np.unique(cell, return_index=True, return_counts=True)
    k = np.minimum(count, _NEAREST)
    told = k >= _FEWEST
    cells, first, k = cells[told], first[told], k[told]
    if not len(cells):
        return h
    last = miss[first + k - 1]
    sums = np.concatenate([[0.0], np.cumsum(miss, dtype=np.float64)])
    below = k * last - (sums[first + k] - sums[first])
    growth = (below + _PRIOR * below.sum() / (k - 1).sum()) / (k - 1 + _PRIOR)
    due = nu[cells] * M
    out = h.copy()
    out[cells] += last - growth * np.log(k / due)
    return out


def _misses(lists: Lists, h: np.ndarray, rare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rare cells in the lists, and by how much each misses its sample; below 0 where it has it."""
    heights = h.astype(np.float32)
    rows = max(1, _ENTRIES // lists.index.shape[1])
    cells, misses = [], []
    for at in range(0, len(lists), rows):
        part = lists.part(slice(at, at + rows))
        value = part.inner + heights[part.index]
        best = value.max(1)
        second = np.partition(value, -2, axis=1)[:, -2]
        row, column = np.nonzero(rare[part.index])
        mine = value[row, column]
        rival = np.where(mine == best[row], second[row], best[row])
        cells.append(part.index[row, column])
        misses.append(rival - mine)
    return np.concatenate(cells), np.concatenate(misses).astype(np.float64)

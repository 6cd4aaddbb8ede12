# SPDX-License-Identifier: Apache-2.0
"""Models that learn while they code: counters of two speeds, mixed, for small maps of indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import neighbours, several, whole
from otcuda.coding.arrays import integers
from otcuda.errors import ArgumentError, ShapeError

LEFT, ABOVE = (0, -1), (-1, 0)
CONTEXTS = ((), (LEFT,), (ABOVE,), (LEFT, ABOVE))
"""Nothing, the left neighbour, the one above, half of the bits of both."""


class AdaptiveModel:
    """State from which `RangeEncoder.adaptive` and `RangeDecoder.adaptive` start.

    A symbol of `bits` bits is a walk down a binary tree; every node has, in each context, a chance
    that follows what it sees at two rates. The chances of several contexts are mixed by weights
    that learn, too. All of it is integer arithmetic, the same everywhere.

    Coding learns on a copy, so one model serves many messages and threads. `learn` makes the model
    itself wiser: train it where models are made, and ship `counters` and `weights`.

    Args:
        bits: of a symbol, 1 to 12.
        contexts: up to 8, each a tuple of neighbours (dy, dx) to the left or above. One neighbour
            counts with all its bits, several share 8.
        rates: shifts of the fast and the slow chance, 1 to 15.

    Raises:
        ArgumentError: numbers out of bounds, or a neighbour that the decoder does not know yet.

    Source: csrc/common/adaptive.h; logistic mixing after Mahoney's PAQ, 2005.

    >>> from otcuda.coding import RangeDecoder, RangeEncoder
    >>> model = AdaptiveModel(bits=3)
    >>> encoder = RangeEncoder()
    >>> encoder.adaptive(np.full((20, 20), 5), model)
    >>> message = encoder.finish()
    >>> len(message) < 40, bool((RangeDecoder(message).adaptive(model, (20, 20)) == 5).all())
    (True, True)
    """

    def __init__(
        self,
        bits: int,
        contexts: Sequence[Sequence[tuple[int, int]]] = CONTEXTS,
        rates: tuple[int, int] = (4, 7),
    ):
        op = "AdaptiveModel"
        self._bits = whole(op, "bits", bits, 1, 12)
        self._rates = tuple(
            whole(op, f"rates[{k}]", rate, 1, 15)
            for k, rate in enumerate(several(op, "rates", rates, 2))
        )
        self._contexts = tuple(
            neighbours(op, "contexts", each) for each in several(op, "contexts", contexts)
        )
        whole(op, "the number of contexts", len(self._contexts), 1, 8)
        if max(map(len, self._contexts)) > 8:
            raise ArgumentError("AdaptiveModel: a context has at most 8 neighbours")
        cells = sum(2 << (self._context_bits(len(each)) + self._bits) for each in self._contexts)
        count = len(self._contexts)
        self.counters = np.full(cells, 1 << 15, np.uint16)
        self.weights = np.full(self._bits * count, min(1 << 16, (3 << 15) // count), np.int32)
        self.learn(np.zeros((0, 0), np.uint16))  # refuses what the core refuses

    def _context_bits(self, neighbours: int) -> int:
        if neighbours <= 1:
            return neighbours * self._bits
        return neighbours * max(1, min(self._bits, 8 // neighbours))

    @property
    def bits(self) -> int:
        """Bits of a symbol."""
        return self._bits

    def learn(self, symbols: Any) -> None:
        """Goes through a map [h, w] as coding would, and keeps what it saw."""
        counters, weights = self.counters.copy(), self.weights.copy()
        _ops.adaptive_learn(as_map("learn", symbols), self._state(), counters, weights)
        self.counters, self.weights = counters, weights

    def _state(self) -> tuple[Any, ...]:
        counters = _exactly("counters", self.counters, np.uint16)
        weights = _exactly("weights", self.weights, np.int32)
        return (self._bits, *self._rates, self._contexts, counters, weights)


def _exactly(name: str, array: Any, dtype: type) -> np.ndarray:
    """Flat, of this dtype, no value changed: the user may have loaded it from anywhere."""
    found = integers("AdaptiveModel", name, array)
    span = np.iinfo(dtype)
    if found.size and not span.min <= int(found.min()) <= int(found.max()) <= span.max:
        raise ArgumentError(f"AdaptiveModel: {name} hold a number outside {span.min} .. {span.max}")
    return np.ascontiguousarray(found, dtype).reshape(-1)


def as_map(op: str, symbols: Any) -> np.ndarray:
    """[h, w], uint16, contiguous; values are checked against the model by the core."""
    array = integers(op, "symbols", symbols)
    if array.ndim != 2:
        raise ShapeError(f"{op} takes symbols [h, w]; got {list(array.shape)}")
    if array.size and (int(array.min()) < 0 or int(array.max()) > 65535):
        raise ArgumentError(f"{op}: symbols hold a number outside 0 .. 65535")
    return np.ascontiguousarray(array, np.uint16)

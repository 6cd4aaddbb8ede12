# SPDX-License-Identifier: Apache-2.0
"""A small integer network that foretells the next symbol of a map: a prior equal everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import neighbours as places
from otcuda.coding.arguments import several, whole
from otcuda.coding.arrays import floats, integers
from otcuda.errors import ArgumentError, ShapeError

_LAYERS = ("from_float", "layers")
_ONE = 127  # the activation 1.0
_LOG2 = 256 / math.log(2)  # nats to the last layer's unit, 2^-8 of a log2


class CausalPrior:
    """Chances of each symbol of a map, from the symbols above it and to its left.

    Weights are int8, sums int32, requantised by a multiplication and a shift; the chances come of
    an integer exp2. So an encoder and a decoder on different machines, levels and thread counts see
    the same numbers, which no float network promises. `RangeEncoder.causal` and
    `RangeDecoder.causal` code maps by it; one prior serves any number of threads.

    Args:
        codes: what the network sees of a symbol, [K + 1, E], integers from 0 to 127; the last row
            stands for what lies outside the map. 2 <= K <= 4096.
        neighbours: (dy, dx) of the symbols it sees, above or in the same row to the left.
        layers: (weights [outputs, inputs] int8, bias [outputs] int32, multiplier [outputs] of 0 to
            2^31 - 1, shift 1 to 62) each; the first one has len(neighbours) E inputs, the last one
            K outputs.
        precision: of the frequencies, at least 1 + log2 K, at most 24.

    Raises:
        ArgumentError: numbers out of bounds, sums that could reach 2^31, a neighbour that a decoder
            does not know yet.
        ShapeError: arrays of the wrong number of dimensions.

    Source: csrc/common/causal_prior.h; Balle et al., Integer networks for data compression with
    latent-variable models, ICLR 2019.

    >>> from otcuda.coding import RangeDecoder, RangeEncoder
    >>> codes, layer = np.eye(4)[[0, 1, 2, 3, 0]], (5 * np.eye(4), [0] * 4)
    >>> same = CausalPrior.from_float(codes, [(0, -1)], [layer])
    >>> encoder = RangeEncoder()
    >>> encoder.causal(np.full((20, 20), 3), same)
    >>> message = encoder.finish()
    >>> len(message), bool((RangeDecoder(message).causal(same, (20, 20)) == 3).all())
    (20, True)
    """

    def __init__(
        self,
        codes: Any,
        neighbours: Sequence[tuple[int, int]],
        layers: Sequence[tuple[Any, Any, Any, int]],
        precision: int = 16,
    ):
        self._codes = _as("codes", codes, 2, np.uint8)
        self._neighbours = places("CausalPrior", "neighbours", neighbours)
        given = several("CausalPrior", "layers", layers)
        self._layers = tuple(
            (
                _as("weights", weights, 2, np.int8),
                _as("bias", bias, 1, np.int32),
                _as("multiplier", multiplier, 1, np.int32),
                whole("CausalPrior", "a shift", shift, -1000, 1000),  # the core names the layer
            )
            for weights, bias, multiplier, shift in (
                several("CausalPrior", "a layer", layer, 4) for layer in given
            )
        )
        self._precision = whole("CausalPrior", "precision", precision, -1000, 1000)
        self._native = _ops.NativeCausalPrior(
            self._codes, self._neighbours, self._layers, self._precision
        )

    @classmethod
    def from_float(
        cls,
        codes: Any,
        neighbours: Sequence[tuple[int, int]],
        layers: Sequence[tuple[Any, Any]],
        precision: int = 16,
    ) -> CausalPrior:
        """A trained network, quantised: a step for where models are made.

        The network is `x = clip(W x + b, 0, 1)` but for the last layer, which gives the logits of a
        soft-max; docs/coding.md trains one. Every output has a scale of its own.

        Args:
            codes: as above, but floats from 0 to 1, [K + 1, E].
            neighbours: as above.
            layers: (W [outputs, inputs], b [outputs]) each, floats.
            precision: as above.

        Raises:
            ArgumentError, ShapeError: as above, and for numbers that are not finite.
        """
        pairs = [several("from_float", "a layer", pair, 2) for pair in several(*_LAYERS, layers)]
        given = [(floats("from_float", "W", W), floats("from_float", "b", b)) for W, b in pairs]
        seen = floats("from_float", "codes", codes)
        if (
            not all(np.isfinite(a).all() for pair in given for a in pair)
            or not ((seen >= 0) & (seen <= 1)).all()
        ):
            raise ArgumentError("from_float: codes lie outside 0 .. 1, or a weight is not finite")
        integer = []
        for k, (W, b) in enumerate(given):
            if W.ndim != 2 or 0 in W.shape or b.shape != W.shape[:1]:
                raise ShapeError(f"from_float takes W [O, I], b [O]; got {W.shape}, {b.shape}")
            unit = np.maximum(np.abs(W).max(1), np.abs(b) / 2**15 + 1e-9) / 127
            factor = unit if k + 1 < len(given) else unit / _ONE * _LOG2
            shift = int(min(max(30 - math.ceil(math.log2(factor.max())), 1), 62))
            multiplier = np.rint(factor * 2.0**shift).clip(0, 2**31 - 1)
            bias = np.rint(b * _ONE / unit)
            weights = np.rint(W / unit[:, None])
            integer.append(
                (
                    weights.astype(np.int64),
                    bias.astype(np.int64),
                    multiplier.astype(np.int64),
                    shift,
                )
            )
        return cls(np.rint(seen * _ONE).astype(np.int64), neighbours, integer, precision)

    @property
    def symbols(self) -> int:
        """Number of symbols K."""
        return self._codes.shape[0] - 1

    def state(self) -> dict[str, Any]:
        """The arguments of the prior, to be stored: integers only."""
        return {
            "codes": self._codes,
            "neighbours": self._neighbours,
            "layers": self._layers,
            "precision": self._precision,
        }


def _as(name: str, values: Any, ndim: int, dtype: type) -> np.ndarray:
    array = integers("CausalPrior", name, values)
    if array.ndim != ndim or 0 in array.shape:
        raise ShapeError(f"CausalPrior: {name} has shape {list(array.shape)}, expected {ndim}-D")
    span = np.iinfo(dtype)
    if int(array.min()) < span.min or int(array.max()) > span.max:
        raise ArgumentError(f"CausalPrior: {name} holds a number outside {span.min} .. {span.max}")
    return np.ascontiguousarray(array, dtype)

# SPDX-License-Identifier: Apache-2.0
"""The causal prior: every level and the plain decoder foretell alike; bounds; float to integer."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np
import pytest
from coding.cases import numbers
from decoders import causal_prior as plain

import otcuda
from otcuda.coding import CausalPrior, RangeDecoder, RangeEncoder

LEFT, ABOVE = (0, -1), (-1, 0)


def random_prior(seed, K, E, neighbours, hidden, P, extreme=False):
    """Integer layers as plain lists, and the prior."""

    def draw(name, count, low, high):
        found = numbers(f"{seed} {name}", count, high - low + 1)
        return np.array([low + v for v in found])

    codes = draw("codes", (K + 1) * E, 0, 127).reshape(K + 1, E)
    if extreme:
        codes[:] = 127
    layers, inputs = [], E * len(neighbours)
    for k, outputs in enumerate((*hidden, K)):
        weights = draw(f"w{k}", outputs * inputs, -128, 127).reshape(outputs, inputs)
        if extreme:
            weights[::2], weights[1::2] = 127, -128
        bias = draw(f"b{k}", outputs, -(2**20), 2**20)
        multiplier = draw(f"m{k}", outputs, 0, 2**31 - 1)
        last = k == len(hidden)
        layers.append((weights, bias, multiplier, 39 if last else 44))
        inputs = outputs
    return codes, layers, CausalPrior(codes, neighbours, layers, P)


CASES = [
    ("one layer", 2, 1, (LEFT,), (), 2),
    ("narrow", 5, 3, (LEFT, ABOVE), (7,), 12),
    ("blocks", 33, 4, (LEFT, ABOVE, (-1, 1)), (16, 17), 16),
    ("many", 300, 2, (LEFT, ABOVE, (-2, 3)), (65,), 24),
]


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_levels_and_the_plain_decoder_agree(case, extreme, simd_level):
    name, K, E, neighbours, hidden, P = case
    codes, layers, prior = random_prior(name, K, E, neighbours, hidden, P, extreme)
    symbols = np.array(numbers(name, 6 * 7, K)).reshape(6, 7)
    encoder = RangeEncoder()
    encoder.causal(symbols, prior)
    message = encoder.finish()
    decoder = RangeDecoder(message)
    np.testing.assert_array_equal(decoder.causal(prior, (6, 7)), symbols)
    decoder.finish()
    lists = [(w.tolist(), b.tolist(), m.tolist(), s) for w, b, m, s in layers]
    assert plain.decode(message, 6, 7, codes.tolist(), neighbours, lists, P) == symbols.tolist()


def test_bytes_are_pinned():
    _, _, prior = random_prior("pinned", 64, 4, (LEFT, ABOVE), (32, 32), 16)
    encoder = RangeEncoder()
    encoder.causal(np.array(numbers("pinned", 400, 64)).reshape(20, 20), prior)
    assert hashlib.sha256(encoder.finish()).hexdigest()[:16] == "0f495f2ecccba02a"


def chances(x, layers):
    for W, b in layers[:-1]:
        x = np.clip(W @ x + b, 0, 1)
    logits = layers[-1][0] @ x + layers[-1][1]
    e = np.exp(logits - logits.max())
    return e / e.sum()


def test_a_float_network_loses_little():
    """Coded bytes against the float network's own cross-entropy, on symbols drawn from it."""
    rng = np.random.default_rng(1)
    K, E, hidden = 16, 4, 24
    codes = rng.random((K + 1, E))
    layers = [
        (rng.normal(0, 1, (hidden, 2 * E)), rng.normal(0, 0.3, hidden)),
        (rng.normal(0, 1.5, (K, hidden)), rng.normal(0, 0.5, K)),
    ]
    symbols, bits = np.zeros((40, 40), int), 0.0
    for y, x in np.ndindex(40, 40):
        around = [symbols[y, x - 1] if x else K, symbols[y - 1, x] if y else K]
        p = chances(codes[around].ravel(), layers)
        symbols[y, x] = rng.choice(K, p=p)
        bits -= np.log2(p[symbols[y, x]])
    encoder = RangeEncoder()
    encoder.causal(symbols, CausalPrior.from_float(codes, (LEFT, ABOVE), layers))
    assert 8 * len(encoder.finish()) < 1.003 * bits + 8


def test_it_mixes_with_other_steps():
    _, _, prior = random_prior("mixed", 9, 2, (LEFT,), (), 16)
    encoder = RangeEncoder()
    encoder.uniform([7], 100)
    encoder.causal([[1, 2], [3, 8]], prior)
    encoder.bits(5, 3)
    decoder = RangeDecoder(encoder.finish())
    assert decoder.uniform(100) == 7
    assert decoder.causal(prior, (2, 2)).tolist() == [[1, 2], [3, 8]]
    assert decoder.bits(3) == 5
    decoder.finish()


def test_any_bytes_give_a_map_or_an_error(simd_level):
    _, _, prior = random_prior("any", 12, 3, (LEFT, ABOVE), (8,), 14)
    rng = np.random.default_rng(3)
    for _ in range(200):
        data = rng.bytes(rng.integers(0, 30))
        with contextlib.suppress(otcuda.CorruptDataError):
            assert RangeDecoder(data).causal(prior, (5, 6)).max() < 12


GOOD = {"codes": np.zeros((4, 2), int), "neighbours": [LEFT]}


def layer(outputs, inputs, weight=1, bias=0, multiplier=1, shift=1):
    W = np.full((outputs, inputs), weight)
    return W, np.full(outputs, bias), np.full(outputs, multiplier), shift


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": [layer(3, 2, bias=2**31 - 254)]}, r"layer 0, output 0: sums may reach 2\^31"),
        ({"layers": [layer(3, 2, -128, -(2**31 - 1))]}, r"sums may reach 2\^31"),
        ({"layers": [layer(3, 2, 128)]}, "weights holds a number outside -128"),
        ({"layers": [layer(3, 2, multiplier=-1)]}, "a multiplier below 0"),
        ({"layers": [layer(3, 2, shift=63)]}, r"a shift outside 1 \.\. 62"),
        ({"layers": [layer(3, 2, shift=0)]}, r"a shift outside 1 \.\. 62"),
        ({"layers": [layer(4, 2)]}, "the last layer has 4 outputs, expected 3"),
        ({"layers": [layer(5, 2), layer(3, 4)]}, r"layer 1 has weights \[3, 4\], expected"),
        ({"layers": []}, r"a prior has 1 \.\. 8 layers"),
        ({"layers": [layer(3, 2)], "neighbours": [(0, 1)]}, "neither above nor to the left"),
        ({"layers": [layer(3, 2)], "neighbours": []}, "the inputs are 0"),
        ({"layers": [layer(3, 2)], "codes": np.full((4, 2), 128)}, "a number above 127"),
        ({"layers": [layer(1, 2)], "codes": np.zeros((2, 2), int)}, "codes has 2 rows"),
        ({"layers": [layer(3, 2)], "precision": 2}, r"precision is 2, expected .* 2 K <= 2\^P"),
        ({"layers": [layer(3, 2)], "precision": 25}, "precision is 25, expected at most 24"),
    ],
)
def test_bad_priors_are_named(given, message):
    with pytest.raises(otcuda.ArgumentError, match=message):
        CausalPrior(**(GOOD | given))


def test_bad_maps_are_named():
    _, _, prior = random_prior("maps", 9, 2, (LEFT,), (), 16)
    with pytest.raises(otcuda.ArgumentError, match=r"symbols\[1\] is 9, expected 0 \.\. 8"):
        RangeEncoder().causal([[8, 9]], prior)
    with pytest.raises(otcuda.ShapeError, match=r"takes symbols \[h, w\]"):
        RangeEncoder().causal([1, 2], prior)
    with pytest.raises(otcuda.LimitError, match="max_symbols is 10"):
        RangeDecoder(b"", max_symbols=10).causal(prior, (4, 4))

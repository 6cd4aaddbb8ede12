# SPDX-License-Identifier: Apache-2.0
"""Adaptive models: both decoders agree, learning pays, models stay as they are, limits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from coding.cases import numbers
from decoders import adaptive as plain

import otcuda
from otcuda.coding import AdaptiveModel, RangeDecoder, RangeEncoder
from otcuda.coding.adaptive import ABOVE, CONTEXTS, LEFT


def smooth_map(seed, h, w, bits):
    """Neighbours that are alike, as indices of an image are."""
    noise = np.array(numbers(f"map {seed}", h * w, 2**16)).reshape(h, w) / 2**16
    field = np.cumsum(np.cumsum(noise - 0.5, 0), 1)
    scaled = (field - field.min()) / (np.ptp(field) + 1e-9) * (2**bits - 1)
    return scaled.astype(np.int64)


def encoded(symbols, model):
    encoder = RangeEncoder()
    encoder.adaptive(symbols, model)
    return encoder.finish()


CASES = [
    (1, ((),), (4, 7)),
    (3, CONTEXTS, (4, 7)),
    (6, ((LEFT,),), (1, 15)),
    (8, ((), (LEFT,), (ABOVE,), (LEFT, ABOVE), (LEFT, ABOVE, (-1, -1), (-1, 1))), (5, 6)),
    (12, ((), (LEFT, ABOVE)), (3, 5)),
]


@pytest.mark.parametrize(("bits", "contexts", "rates"), CASES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 13)])
def test_both_decoders_return_the_map(bits, contexts, rates, shape):
    symbols = smooth_map(f"{bits} {shape}", *shape, bits)
    symbols[0, 0], symbols[-1, -1] = 0, 2**bits - 1
    message = encoded(symbols, AdaptiveModel(bits, contexts, rates))
    decoder = RangeDecoder(message)
    decoded = decoder.adaptive(AdaptiveModel(bits, contexts, rates), shape)
    decoder.finish()
    np.testing.assert_array_equal(decoded, symbols.astype(np.uint16), strict=True)
    assert plain.decode(message, *shape, bits, contexts, rates) == symbols.tolist()


def test_the_plain_decoder_starts_from_what_a_model_has_learnt():
    contexts = ((), (LEFT,), (LEFT, ABOVE, (-1, -1)))
    model, symbols = AdaptiveModel(5, contexts), smooth_map("learnt", 9, 8, 5)
    for seed in range(3):
        model.learn(smooth_map(f"before {seed}", 12, 12, 5))
    learnt = model.counters.tolist(), model.weights.tolist()
    message = encoded(symbols, model)
    assert plain.decode(message, 9, 8, 5, contexts, learnt=learnt) == symbols.tolist()
    assert message != encoded(symbols, AdaptiveModel(5, contexts))


def test_bytes_are_pinned():
    symbols = smooth_map("pinned", 24, 48, 8)
    message = encoded(symbols, AdaptiveModel(8))
    assert hashlib.sha256(message).hexdigest()[:16] == "0d0d12a6bb519fae"


def test_saturated_chances_stay_codable():
    """A long run of one symbol, then the other: no chance may reach 0 or 1."""
    symbols = np.r_[np.zeros(20_000, int), np.ones(300, int)].reshape(1, -1)
    model = AdaptiveModel(1, rates=(1, 2))
    message = encoded(symbols, model)
    assert len(message) < 120
    decoded = RangeDecoder(message).adaptive(model, symbols.shape)
    np.testing.assert_array_equal(decoded, symbols)


def test_contexts_and_learning_pay():
    """What the document says: mixing beats one counter, a model that has learnt beats a new one."""
    target, others = smooth_map("a", 24, 48, 6), [smooth_map(f"b{k}", 24, 48, 6) for k in range(8)]
    alone = len(encoded(target, AdaptiveModel(6, ((),))))
    mixed = len(encoded(target, AdaptiveModel(6)))
    wise = AdaptiveModel(6)
    for other in others:
        wise.learn(other)
    shipped = len(encoded(target, wise))
    assert mixed < 0.95 * alone
    assert shipped < 0.95 * mixed
    state = wise.counters.copy(), wise.weights.copy()
    np.testing.assert_array_equal(
        RangeDecoder(encoded(target, wise)).adaptive(wise, target.shape), target
    )
    np.testing.assert_array_equal(wise.counters, state[0])
    np.testing.assert_array_equal(wise.weights, state[1])


def test_it_mixes_with_other_steps():
    model, symbols = AdaptiveModel(4), smooth_map("steps", 5, 6, 4)
    encoder = RangeEncoder()
    encoder.bits(5, 3)
    encoder.adaptive(symbols, model)
    encoder.uniform(7, 10)
    decoder = RangeDecoder(encoder.finish())
    assert decoder.bits(3) == 5
    np.testing.assert_array_equal(decoder.adaptive(model, (5, 6)), symbols)
    assert decoder.uniform(10) == 7
    decoder.finish()


def test_any_bytes_give_a_map_or_an_error():
    model = AdaptiveModel(5)
    for k in range(200):
        data = bytes(numbers(f"noise {k}", k % 40, 256))
        try:
            decoded = RangeDecoder(data).adaptive(model, (6, 7))
        except otcuda.CorruptDataError:
            continue
        assert decoded.max() < 32


def test_errors_name_what_is_wrong():
    with pytest.raises(otcuda.ArgumentError, match=r"bits is 13, expected 1 .. 12"):
        AdaptiveModel(13)
    with pytest.raises(otcuda.ArgumentError, match="neither above nor to the left"):
        AdaptiveModel(3, (((0, 1),),))
    with pytest.raises(otcuda.ArgumentError, match=r"rates\[0\] is 0, expected 1 .. 15"):
        AdaptiveModel(3, rates=(0, 7))
    model = AdaptiveModel(3)
    with pytest.raises(otcuda.ArgumentError, match=r"symbols\[1\] is 8, expected 0 .. 7"):
        encoded(np.array([[1, 8]]), model)
    with pytest.raises(otcuda.ShapeError, match=r"takes symbols \[h, w\]"):
        encoded(np.array([1, 2]), model)
    with pytest.raises(otcuda.LimitError):
        RangeDecoder(b"", max_symbols=10).adaptive(model, (4, 4))
    model.counters = model.counters[:-1]
    with pytest.raises(otcuda.ArgumentError, match="counters are not those"):
        encoded(np.array([[1]]), model)

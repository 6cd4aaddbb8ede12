# SPDX-License-Identifier: Apache-2.0
"""Tables: the quantiser is optimal, the bytes canonical, everything out of bounds is named."""

from __future__ import annotations

import hashlib
import itertools
import math
import pickle

import numpy as np
import pytest
from coding.cases import holed_frequencies, numbers, spread_weights
from decoders import range64 as plain
from hypothesis import given, settings
from hypothesis import strategies as st

import otcuda
from otcuda.coding import Tables, encode_raw

WEIGHTS = st.one_of(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
    st.lists(st.integers(0, 22).map(lambda e: 2**e), min_size=1, max_size=40),
)


def code_length(weights, f):
    return -sum(w * math.log2(k) for w, k in zip(weights, f, strict=True))


@given(WEIGHTS, st.integers(1, 9), st.booleans())
@settings(max_examples=120, deadline=None)
def test_quantiser_equals_plain_greedy(weights, P, escape):
    if sum(weights) == 0 or (not escape and len(weights) > 2**P):
        with pytest.raises(otcuda.ArgumentError):
            Tables.from_weights(weights, P, escape)
        return
    assert Tables.from_weights(weights, P, escape).frequencies[0].tolist() == plain.quantise(
        weights, P, escape
    )


@pytest.mark.parametrize(("P", "n", "escape"), [(12, 12, False), (12, 12, True), (16, 999, True)])
def test_quantiser_equals_plain_greedy_at_high_precision(P, n, escape):
    weights = spread_weights("high", n, 24 if n < 99 else 6)
    got = Tables.from_weights(weights, P, escape).frequencies[0].tolist()
    assert got == plain.quantise(weights, P, escape)


@pytest.mark.parametrize(("P", "n", "escape"), [(17, 40, False), (18, 2000, True)])
def test_quantiser_equals_plain_greedy_where_logarithms_are_not_listed(P, n, escape):
    weights = [3 * w + 1 for w in numbers("wide", n, 10**6)]
    got = Tables.from_weights(weights, P, escape).frequencies[0].tolist()
    assert got == plain.quantise(weights, P, escape)


def test_wide_tables_sum_up_and_are_the_best_within_one_unit():
    """P = 24: no unit moved from one symbol to another gains anything."""
    weights = np.array(numbers("P24", 50, 2**31), float) + 1
    f = Tables.from_weights(weights.astype(np.int64), 24, escape=False).frequencies[0].astype(int)
    assert f.sum() == 2**24
    gain, loss = weights * np.log2((f + 1) / f), weights * np.log2(f / (f - 1))
    assert gain.max() <= loss.min() * (1 + 1e-6)


def test_quantiser_is_optimal_against_brute_force():
    P = 4
    splits = [f for f in itertools.product(range(1, 14), repeat=3) if sum(f) < 2**P]
    for seed in range(200):
        weights = [1 + w for w in numbers(f"brute {seed}", 4, 1000)]
        best = min(code_length(weights, (*f, 2**P - sum(f))) for f in splits)
        f = Tables.from_weights(weights, P, escape=False).frequencies[0].tolist()
        assert code_length(weights, f) <= best + 1e-9 * abs(best)


def test_what_is_rare_goes_behind_the_escape():
    f = Tables.from_weights([64, 3, 4, 0, 57], precision=4).frequencies[0].tolist()
    assert f == [7, 0, 1, 0, 7]  # 2^-5 of the weight is 4


def test_a_flat_alphabet_wider_than_the_slots_keeps_the_heaviest():
    f = Tables.from_weights([5] * 20 + [6] * 2, 4).frequencies[0]
    assert f.sum() == 15
    assert f[20] == 1
    assert f[21] == 1
    assert f[:13].tolist() == [1] * 13  # of equal ones the lowest stay
    assert Tables.from_weights([1] * 1000, 4).frequencies[0].tolist() == [15] + [0] * 999


@pytest.mark.parametrize("scale", [1 / 32, 0.11, 0.7, 3.3, 32.0, 900.0])
@pytest.mark.parametrize("density", ["gaussian", "laplace"])
def test_densities_equal_their_integrals(scale, density):
    low, high = -70, 60

    def cdf(x):
        if density == "gaussian":
            return 0.5 * math.erfc(-x / (scale * math.sqrt(2)))
        return 0.5 * math.exp(x / scale) if x < 0 else 1 - 0.5 * math.exp(-x / scale)

    weights = otcuda._ops.density_weights(
        density, np.array([round(scale * 65536)]), low, high - low + 1
    )[0].astype(float)
    p = np.array([cdf(s + 0.5) - cdf(s - 0.5) for s in range(low, high + 1)])
    scale_error = abs(round(scale * 65536) / 65536 / scale - 1)
    seen = p > 1e-4
    np.testing.assert_allclose(
        (weights / weights.sum())[seen], (p / p.sum())[seen], rtol=2e-4 + 30 * scale_error
    )


def test_scales_make_different_tables():
    tables = Tables.gaussian([0.5, 4.0], -20, 20)
    assert tables.frequencies[0].max() > 3 * tables.frequencies[1].max()
    assert Tables.laplace([4.0], -20, 20) != Tables.gaussian([4.0], -20, 20)


@pytest.mark.parametrize("K", [1, 2, 3, 256, 1000, 65536])
def test_equiprobable(K):
    f = Tables.equiprobable(K).frequencies[0]
    assert f.max() - f.min() <= 1
    assert f.sum() == 2 ** Tables.equiprobable(K).precision
    if K > 1 and K & (K - 1) == 0:
        assert f.tolist() == [1] * K


def test_canonical_bytes():
    tables = Tables([[3, 0, 12], [15, 0, 0]], precision=4, low=-2)
    assert tables.to_bytes() == bytes.fromhex(
        "01040100 feffffff 02000000 03000000 0300 0000 0c00 0f00 0000 0000"
    )
    assert tables.digest == hashlib.blake2b(tables.to_bytes(), digest_size=32).digest()
    assert Tables([[65536]], precision=16, escape=False).to_bytes()[16:] == b"\0\0"


def table_set():
    return [
        Tables.gaussian([0.3, 2.0], -9, 9),
        Tables.from_weights([spread_weights("set", 300)], 16, low=2**31 - 300),
        Tables([[65536]], precision=16, escape=False, low=-(2**31)),
        Tables([[1, 1]] * 5, precision=1, escape=False),
        Tables([holed_frequencies("set", 12, 99)], 12),
        Tables([holed_frequencies("wide", 24, 99), holed_frequencies("set", 24, 99)], 24),
    ]


@pytest.mark.parametrize("tables", table_set(), ids=repr)
def test_bytes_and_pickles_return_the_tables(tables):
    for again in (Tables.from_bytes(tables.to_bytes()), pickle.loads(pickle.dumps(tables))):
        assert again == tables
        assert hash(again) == hash(tables)
        assert (again.low, again.precision, again.escape) == (
            tables.low,
            tables.precision,
            tables.escape,
        )
    theirs = plain.read_tables(tables.to_bytes())
    assert theirs.frequencies == tables.frequencies.tolist()


@pytest.mark.parametrize("tables", table_set(), ids=repr)
def test_damaged_bytes_are_refused_or_are_other_tables(tables):
    """A flip is noticed, unless it gives the canonical bytes of other tables (low, a swap)."""
    data = tables.to_bytes()
    for length in range(0, len(data), 1 + len(data) // 50):
        with pytest.raises(otcuda.CorruptDataError):
            Tables.from_bytes(data[:length])
    with pytest.raises(otcuda.CorruptDataError):
        Tables.from_bytes(data + b"\0")
    for at in range(min(len(data), 60)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                other = Tables.from_bytes(flipped)
            except otcuda.CorruptDataError:
                continue
            assert 4 <= at < 8, "only `low` may be anything"
            assert other.to_bytes() == bytes(flipped)


@given(st.binary(max_size=80))
@settings(max_examples=120, deadline=None)
def test_any_bytes_after_a_true_head_are_judged_as_by_the_plain_reader(tail):
    data = bytes.fromhex("01040100 feffffff") + tail
    try:
        theirs = plain.read_tables(data)
    except plain.DamagedError:
        with pytest.raises(otcuda.CorruptDataError):
            Tables.from_bytes(data)
    else:
        assert Tables.from_bytes(data).frequencies.tolist() == theirs.frequencies


def test_tables_do_not_change():
    mine = np.array([[1, 3]], np.uint32)
    tables = Tables(mine, precision=2, escape=False)
    before = encode_raw([0, 1, 1], tables)
    mine[:] = [3, 1]
    assert encode_raw([0, 1, 1], tables) == before
    assert tables.frequencies.tolist() == [[1, 3]]
    with pytest.raises(ValueError, match="read-only"):
        tables.frequencies[0, 0] = 2
    with pytest.raises(AttributeError):
        tables.precision = 3


def test_cost_counts_every_step():
    tables = Tables([[8, 0, 7], [1, 14, 0]], precision=4, low=-1)
    inside = math.log2(16 / 8) + math.log2(16 / 14)
    assert tables.cost([-1, 0], [0, 1]) == pytest.approx(inside)
    assert tables.cost([0], [0]) == pytest.approx(4 + math.log2(4))  # escape, one of n + 1
    assert tables.cost([2], [0]) == pytest.approx(4 + math.log2(4) + 1 + 1)  # side, distance 0
    assert tables.cost([-5], [0]) == pytest.approx(4 + math.log2(4) + 1 + 5)  # distance 3
    assert tables.cost([], []) == 0


FULL = "expected 1 .. 24"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tables([[1, 2]], precision=2, escape=False), "table 0 sums to 3, not 4"),
        (lambda: Tables([[1, 2]], 20, escape=False), "table 0 sums to 3, not 1048576"),
        (lambda: Tables([[1, 2**20]], 20, escape=False), "table 0 sums to more than 1048576"),
        (lambda: Tables([[2**20, 0]], 20, escape=False), "table 0 has a frequency of 0"),
        (lambda: Tables([[1, 3], [4, 1]], 2, escape=False), "table 1 sums to more than 4"),
        (lambda: Tables([[4, 0]], 2, escape=False), "table 0 has a frequency of 0 but no escape"),
        (lambda: Tables([[1]], precision=25), "precision is 25, " + FULL),
        (lambda: Tables([[1]], precision=0), "precision is 0, " + FULL),
        (lambda: Tables([[1, 2]], 2, low=2**31 - 1), "last symbol is 2147483648"),
        (lambda: Tables([[1]], 2, low=2**40), "low is 1099511627776"),
        (lambda: Tables([[1] * 65537], 16), "number of symbols is 65537"),
        (lambda: Tables(np.ones((65537, 1), int), 1), "number of tables is 65537"),
        (lambda: Tables(np.ones((65536, 65), int), 12), "tables times symbols is 4259840"),
        (lambda: Tables([[0.5, 0.5]]), "frequencies is float64, expected integers"),
        (lambda: Tables.from_weights([[1, 2], [0, 0]]), "table 1 has no weight above 0"),
        (lambda: Tables.from_weights([-1, 2]), r"weights holds -1 \.\. 2"),
        (lambda: Tables.from_weights([2**32, 2]), r"weights holds 2 \.\. 4294967296"),
        (lambda: Tables.from_weights([1] * 5, 2, escape=False), "number of symbols is 5"),
        (lambda: Tables.from_weights([1], 99), "precision is 99, " + FULL),
        (lambda: Tables.from_pmf([0.5, np.nan]), "negative or not finite"),
        (lambda: Tables.from_pmf([[1.0, 1.0], [0.0, 0.0]]), "row 1 of pmf is all zeros"),
        (lambda: Tables.gaussian([0.01], -5, 5), "scales lie outside 1/32"),
        (lambda: Tables.gaussian([1.0], 1, 5), r"the alphabet is 1 \.\. 5"),
        (lambda: Tables.laplace([1.0], -40000, 40000), "at most 65536 symbols"),
        (lambda: Tables.laplace([1.0] * 100, -30000, 30000), "100 tables of 60001 symbols"),
        (lambda: Tables.equiprobable(0), "K is 0, expected 1"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(otcuda.ArgumentError, match=message):
        make()


@pytest.mark.parametrize("bad", [np.zeros((0, 3), int), np.zeros((2, 2, 2), int), []])
def test_bad_shapes_are_named(bad):
    with pytest.raises(otcuda.ShapeError, match=r"takes frequencies \[T, n\] or \[n\]"):
        Tables(bad)


def test_memory_is_capped_and_nothing_leaks():
    from otcuda._ops import native

    weights = np.arange(1, 501)
    Tables.from_weights(weights, 10)
    before = native.memory_in_use()
    for k in range(1, 40):
        native.fail_allocation(k)
        try:
            Tables.from_weights(weights, 10)
        except otcuda.LimitError:
            pass
        else:
            break
        finally:
            native.fail_allocation(0)
    assert k > 5, "the quantiser allocates through the gate"
    assert native.memory_in_use() == before


def test_counts_of_any_size():
    counts = np.array([[2**62, 2**61, 1], [5, 3, 0]])
    tables = Tables.from_counts(counts, precision=8)
    assert tables == Tables.from_weights([[2**31, 2**30, 0], [5, 3, 0]], 8)
    with pytest.raises(otcuda.ArgumentError, match="counts holds -1"):
        Tables.from_counts([-1, 2])
    with pytest.raises(otcuda.ArgumentError, match="no weight"):
        Tables.from_counts([[1, 2], [0, 0]])


def test_masses_of_cells_are_counts():
    index = np.array([0, 0, 2, 2, 2, 1, 2, 2])
    mass = otcuda.cell_mass(index, 4)
    tables = Tables.from_counts(mass, precision=3)
    assert tables.frequencies.tolist() == [[2, 1, 4, 0]]

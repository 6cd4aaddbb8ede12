# SPDX-License-Identifier: Apache-2.0
"""sobol_samples: equal to its definition, nets whatever the scramble, laws, quality, errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import qmc

from otcuda import reference
from otcuda._lists import SOBOL_DIMENSIONS, sobol_samples
from otcuda._ops import native
from otcuda.errors import ArgumentError

HEADER = Path(__file__).parents[2] / "csrc/common/sobol_samples.h"
ROWS = re.findall(r"\{(\d+), (\d+), \{([\d, ]+)\}\}", HEADER.read_text())
TABLE = [(int(s), int(p), [int(m) for m in first.split(",")]) for s, p, first in ROWS]


def directions(d):
    """v_d[0 .. 31] by Sobol's recurrence."""
    if d == 0:
        return [1 << (31 - k) for k in range(32)]
    degree, polynomial, first = TABLE[d - 1]
    m = list(first)
    for k in range(degree, 32):
        new = m[k - degree] ^ (m[k - degree] << degree)
        for j in range(1, degree):
            if polynomial >> (degree - j) & 1:
                new ^= m[k - j] << j
        m.append(new)
    return [each << (31 - k) for k, each in enumerate(m)]


def words(n, D, seed, stream):
    """The definition of csrc/common/sobol_samples.h, point by point."""
    out = np.empty((len(n), D), np.uint64)
    for d in range(D):
        rows = reference.philox_words(seed, stream, 8 * d, 8).flatten().tolist()
        shift = reference.philox_words(seed, stream, 2**32 + d, 1).flatten().tolist()[0]
        scrambled = []
        for v in directions(d):
            value = 0
            for r in range(32):
                mask = (rows[r] >> (32 - r) << (32 - r)) | (1 << (31 - r))
                value |= ((v & mask).bit_count() & 1) << (31 - r)
            scrambled.append(value)
        for b, each in enumerate(n):
            word = shift
            for k in range(32):
                if (each ^ (each >> 1)) >> k & 1:
                    word ^= scrambled[k]
            out[b, d] = word
    return out


def draw(B, D, source="uniform", **keys):
    return sobol_samples(np.empty((B, D), np.float32), source, **({"seed": 5} | keys))


def test_table_holds_primitive_polynomials_and_odd_numbers():
    assert len(TABLE) == SOBOL_DIMENSIONS - 1
    assert len({polynomial for _, polynomial, _ in TABLE}) == len(TABLE)
    for degree, polynomial, first in TABLE:
        assert len(first) == degree
        assert all(m % 2 == 1 and m < 2 << k for k, m in enumerate(first))
        value, order = 1, 0
        while order == 0 or value != 1:
            value <<= 1
            value ^= polynomial if value >> degree else 0
            order += 1
        assert order == 2**degree - 1  # x generates the field


def test_equals_its_definition(simd_level):
    for B, D, offset in ((5, 3, 0), (300, 2, 77), (3, 32, 2**32 - 3), (1, 1, 12345)):
        want = words(range(offset, offset + B), D, 2**40 + 9, 4)
        got = draw(B, D, seed=2**40 + 9, stream=4, offset=offset)
        expected = ((want >> np.uint64(9)).astype(float) + 0.5) / 2**23
        np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_unscrambled_points_of_the_first_dimensions_are_sobols():
    """Where the table leaves no choice: our recurrence against scipy's points."""
    n = np.arange(512)
    ours = np.zeros((512, 2), np.int64)
    for d in range(2):
        for k, v in enumerate(directions(d)):
            ours[:, d] ^= np.where((n ^ (n >> 1)) >> k & 1, v, 0)
    np.testing.assert_array_equal(ours / 2**32, qmc.Sobol(2, scramble=False).random(512))


@pytest.mark.parametrize("source", ["uniform", "normal", "gaussian_cdf"])
def test_scrambled_points_are_nets(source):
    """Every interval of length 2^-10 holds one of 2^10 points; so do the boxes of a plane."""
    x = draw(1024, SOBOL_DIMENSIONS, source).astype(float)
    u = ndtr(x) if source == "normal" else x
    for d in range(SOBOL_DIMENSIONS):
        assert (np.bincount((u[:, d] * 1024).astype(int), minlength=1024) == 1).all()
    for k in range(11):
        box = (u[:, 0] * 2**k).astype(int) * 2 ** (10 - k) + (u[:, 1] * 2 ** (10 - k)).astype(int)
        assert (np.bincount(box, minlength=1024) == 1).all()


def test_a_point_has_the_law_of_the_source_and_scrambles_are_independent():
    x = np.concatenate([draw(4, 3, "normal", seed=s) for s in range(2000)]).astype(float)
    first, second = x[::4], x[1::4]
    for each in (first, second):
        assert abs(each.mean(0)).max() < 4 / 2000**0.5
        assert abs(each.var(0) - 1).max() < 0.15
    other = np.concatenate([draw(4, 3, "normal", seed=s, stream=1) for s in range(2000)])[::4]
    assert abs((first * other).mean(0)).max() < 4 / 2000**0.5
    # Neighbours of a net avoid each other: that is what it is for.
    assert (first * second).mean(0).max() < -0.3


def test_planes_are_as_even_as_those_of_joe_and_kuo():
    """Mean centred discrepancy over pairs of dimensions, beside scipy's table."""
    D, M = 12, 256
    theirs = qmc.Sobol(D, seed=1).random(M)
    pairs = [(a, b) for a in range(D) for b in range(a)]
    mean = [
        np.mean([qmc.discrepancy(u[:, pair]) for pair in pairs])
        for u in (draw(M, D).astype(float), theirs, np.random.default_rng(0).random((M, D)))
    ]
    assert mean[0] < 1.1 * mean[1]
    assert mean[0] < mean[2] / 20


def test_parts_levels_and_threads_give_the_same_bits():
    whole, found = draw(5000, 7, "normal"), []
    for level in native.simd_levels():
        for threads in (1, 3):
            native.set_simd_level(level)
            native.set_num_threads(threads)
            found.append(draw(5000, 7, "normal").tobytes())
    native.set_simd_level("auto")
    native.set_num_threads(0)
    assert set(found) == {whole.tobytes()}
    np.testing.assert_array_equal(draw(999, 7, "normal", offset=3001), whole[3001:4000])
    assert draw(0, 7).shape == (0, 7)


def test_what_is_not_there_is_named():
    with pytest.raises(ArgumentError, match="33 columns, expected 32"):
        draw(2, 33)
    with pytest.raises(ArgumentError, match=r"offset \+ B <= 2\^32"):
        draw(2, 3, offset=2**32 - 1)
    with pytest.raises(ArgumentError, match="'cauchy'"):
        draw(2, 3, "cauchy")

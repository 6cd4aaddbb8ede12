# SPDX-License-Identifier: Apache-2.0
"""top_cells: lists against a sort of all scores, exact on integers; products of halves."""

from __future__ import annotations

import numpy as np
import pytest

import otcuda
from otcuda._lists import HALVES, top_cells
from otcuda._ops import native
from otcuda.errors import ArgumentError, ShapeError

SHAPES = [(1, 1, 1, 1), (3, 5, 2, 5), (24, 95, 3, 16), (25, 97, 16, 23), (400, 1000, 7, 16)]


def integers(rng, *shape):
    """Small integers: every score is exact, and ties are common."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def listed(x, y, h, K):
    rows = len(x) * (HALVES**2 if x.ndim == 3 else 1)
    out = np.empty((rows, K), np.int32), np.empty((rows, K), np.float32), np.empty(rows, np.float32)
    top_cells(x, y, h, out)
    return out


def expected(x, y, h, K):
    inner = x @ y.T
    order = np.argsort(-(inner + h), 1, kind="stable")
    score = np.take_along_axis(inner + h, order, 1)
    cut = score[:, K] if len(y) > K else np.full(len(x), -np.inf)
    return order[:, :K], np.take_along_axis(inner, order, 1)[:, :K], cut


def written_out(x):
    """All pairs of left and right halves, [256 G, D]."""
    k = x.shape[2] // 2
    left = np.repeat(x[:, :, None, :k], HALVES, 2)
    right = np.repeat(x[:, None, :, k:], HALVES, 1)
    return np.concatenate([left, right], -1).reshape(-1, x.shape[2])


@pytest.mark.parametrize(("B", "N", "D", "K"), SHAPES)
def test_equals_a_stable_sort(B, N, D, K, simd_level, threads):
    rng = np.random.default_rng(B)
    x, y, h = integers(rng, B, D), integers(rng, N, D), integers(rng, N)
    otcuda._ops.native.reset_backend_paths()
    found = listed(x, y, h, K)
    assert native.backend_paths()[f"top_cells/{simd_level}"] == {"calls": 1, "items": B}
    for mine, truth in zip(found, expected(x, y, h, K), strict=True):
        np.testing.assert_array_equal(mine, truth)


@pytest.mark.parametrize(("G", "N", "D", "K"), [(1, 1, 2, 1), (2, 40, 3, 16), (5, 333, 6, 7)])
def test_product_samples_are_all_pairs(G, N, D, K, simd_level, threads):
    rng = np.random.default_rng(G)
    x, y, h = integers(rng, G, HALVES, D), integers(rng, N, D), integers(rng, N)
    for mine, truth in zip(listed(x, y, h, K), expected(written_out(x), y, h, K), strict=True):
        np.testing.assert_array_equal(mine, truth)


def test_first_of_a_list_is_the_winner_bit_for_bit(simd_level):
    rng = np.random.default_rng(0)
    x, y, h = (rng.normal(size=s).astype(np.float32) for s in ((500, 9), (700, 9), (700,)))
    index, inner, cut = listed(x, y, h, 16)
    value, winner = otcuda.power_argmax(x, y, h)
    np.testing.assert_array_equal(index[:, 0], winner)
    np.testing.assert_array_equal(inner[:, 0] + h[winner], value)
    left_out = (x.astype(float) @ y.T.astype(float) + h)[np.arange(500), :]
    np.put_along_axis(left_out, index.astype(np.int64), -np.inf, 1)
    np.testing.assert_allclose(left_out.max(1), cut, atol=1e-5)


def test_levels_agree_bit_for_bit_on_floats():
    rng = np.random.default_rng(1)
    plain, halves = rng.normal(size=(300, 10)), rng.normal(size=(3, HALVES, 10))
    y, h = rng.normal(size=(900, 10)).astype("f4"), rng.normal(size=900).astype("f4")
    found = []
    for level in native.simd_levels():
        native.set_simd_level(level)
        parts = [listed(x.astype("f4"), y, h, 16) for x in (plain, halves)]
        found.append([array.tobytes() for part in parts for array in part])
    native.set_simd_level("auto")
    assert all(each == found[0] for each in found)


def test_missing_places_and_nan():
    x, y = np.ones((2, 1), "f4"), np.array([[1], [2], [3]], "f4")
    index, inner, cut = listed(x, y, np.array([0, np.nan, -np.inf], "f4"), 3)
    assert index.tolist() == [[0, 0, 0]] * 2
    assert inner[0].tolist() == [1, -np.inf, -np.inf]
    assert cut[0] == -np.inf


def test_wrong_arguments_are_named():
    x, y, h = np.ones((2, 3), "f4"), np.ones((4, 3), "f4"), np.ones(4, "f4")
    with pytest.raises(ArgumentError, match="1 to 23"):
        listed(x, y, h, 24)
    with pytest.raises(ShapeError, match="h"):
        listed(x, y, h[:3], 2)
    with pytest.raises(ShapeError, match="y"):
        listed(x, y[:, :2].copy(), h, 2)

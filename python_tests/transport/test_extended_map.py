# SPDX-License-Identifier: Apache-2.0
"""The extended map: where it joins, where it refuses, and the hull that it never leaves."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from problems import clusters, ring

from otcuda.errors import ArgumentError
from otcuda.transport import SemiDiscreteOT
from otcuda.transport.estimators import chi2_from_counts
from otcuda.transport.extended_map import WEIGHTS, otsu, plane_angles


def fitted(y, nu=None, source="normal"):
    ot = SemiDiscreteOT(y, nu, source)
    ot.fit(chi2=0.1)
    return ot


@pytest.fixture(scope="module")
def smooth():
    """80 targets without modes, and samples."""
    ot = fitted(np.random.default_rng(0).normal(size=(80, 3)))
    return ot, ot.pairs(3000, seed=1)[0]


@pytest.mark.parametrize("angle", ["auto", 1.0])
def test_two_modes_on_the_line_reject_the_interval_round_the_jump(angle):
    """Targets -3, -2, 2, 3: the second-best cell lies across the jump where 4 |x| < q - |x|."""
    ot = fitted(np.array([[-3.0], [-2.0], [2.0], [3.0]]))
    edge = NormalDist().inv_cdf(0.75) / 5
    x = np.linspace(-1, 1, 4001)[:, None] + 1e-9
    found = ot.extended_map(x, topk=2, angle=angle)
    np.testing.assert_array_equal(found.valid, abs(x[:, 0]) > edge)
    source = ot.pairs(40_000)[0]
    rejected = 1 - ot.extended_map(source, topk=2, angle=angle).valid.mean()
    assert rejected == pytest.approx(2 * NormalDist().cdf(edge) - 1, abs=0.008)
    assert (found.points[~found.valid] == ot.transport(x[~found.valid])).all()
    joined = found.points[found.valid & (x[:, 0] > 0), 0]
    assert 2 <= joined.min() < 2.5 < joined.max() <= 3


@pytest.mark.parametrize("weights", WEIGHTS)
def test_topk_one_is_the_plain_map(smooth, weights):
    ot, x = smooth
    found = ot.extended_map(x, topk=1, weights=weights)
    np.testing.assert_array_equal(found.points, ot.transport(x))
    np.testing.assert_array_equal(found.indices[:, 0], ot.assign(x))
    assert found.valid.all()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_one_target_is_the_identity_of_everything(weights):
    ot = fitted(np.array([[2.0, 1.0]]))
    found = ot.extended_map(np.zeros((3, 2)), weights=weights)
    assert found.points.tolist() == [[2, 1]] * 3
    assert found.valid.all()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_angle_pi_rejects_nothing_and_angle_zero_everything(smooth, weights):
    ot, x = smooth
    assert ot.extended_map(x, angle=math.pi, weights=weights).valid.all()
    nothing = ot.extended_map(x, angle=0.0, weights=weights)
    assert not nothing.valid.any()
    np.testing.assert_array_equal(nothing.points, ot.transport(x))


@pytest.mark.parametrize("angle", ["auto", 0.7, math.pi])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_points_are_means_of_their_targets(smooth, weights, angle):
    ot, x = smooth
    found = ot.extended_map(x, angle=angle, weights=weights)
    assert found.weights.min() >= 0
    np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-6)
    of_targets = (found.weights[:, :, None] * ot.y[found.indices]).sum(1)
    np.testing.assert_allclose(found.points, of_targets, atol=1e-5)
    moved = abs(found.points - ot.transport(x)).max(1) > 1e-3
    assert moved[found.valid].mean() > 0.9  # it does something
    assert not moved[~found.valid].any()
    assert (np.diff(np.sort(found.indices, 1), axis=1) > 0).all()  # candidates differ


def test_candidates_are_the_best_by_value(smooth):
    ot, x = smooth
    scores = x.astype(float) @ ot.y.T + ot.heights
    best = np.argsort(-scores, 1)[:, :8]
    assert (ot.extended_map(x).indices == best).mean() > 0.999


def test_gap_weights_are_continuous_and_centroid_weights_are_the_papers():
    ot = fitted(np.random.default_rng(0).normal(size=(80, 3)))
    x = np.linspace(-1, 1, 4001)[:, None] * np.array([1.0, 0.5, -0.3])
    steps = np.linalg.norm(
        np.diff(ot.extended_map(x, topk=80, angle=math.pi).points, axis=0), axis=1
    )
    jumps = np.linalg.norm(np.diff(ot.transport(x), axis=0), axis=1)
    assert steps.max() < 0.02 < jumps.max()
    source = ot.pairs(400_000, seed=5)[0]
    index = ot.assign(source)
    centroid = np.stack([source[index == i].mean(0) for i in range(80)])
    found = ot.extended_map(x, topk=3, angle=math.pi, weights="centroid")
    inverse = 1 / np.linalg.norm(x[:, None] - centroid[found.indices], axis=2)
    far = inverse.max(1) < 10  # near a centroid its own error shows
    expected = inverse / inverse.sum(1, keepdims=True)
    assert np.median(abs(found.weights - expected)[far]) < 0.03


def test_released_weights_follow_the_number_of_the_target(smooth):
    ot, x = smooth
    found = ot.extended_map(x, topk=2, angle=math.pi, weights="aeot")
    low_first = found.indices[:, 0] < found.indices[:, 1]
    np.testing.assert_array_equal(found.weights[:, 0], np.where(low_first, 0.25, 0.75))


@pytest.mark.parametrize(("weights", "without"), [("gap", 0.01), ("centroid", 0.05)])
def test_ring_of_gaussians_stays_on_its_modes(weights, without):
    y, centres = ring(each=8)
    ot = fitted(y)
    x = ot.pairs(4000, seed=2)[0]

    def off(angle):
        found = ot.extended_map(x, angle=angle, weights=weights)
        assert found.valid.mean() > 0.9
        points = found.points[found.valid]
        return (np.linalg.norm(points[:, None] - centres, axis=2).min(1) > 4 * 0.05).mean()

    assert off("auto") == 0
    assert off(math.pi) > without


@pytest.mark.parametrize("weights", WEIGHTS)
def test_points_stay_on_the_manifold_of_the_targets(weights):
    """A circle: the chord between neighbours stays near it, means across it do not."""
    turn = 2 * np.pi * np.arange(200) / 200
    y = 2 * np.stack([np.cos(turn), np.sin(turn)], 1)
    ot = fitted(y)
    x = ot.pairs(4000, seed=2)[0]
    found = ot.extended_map(x, weights=weights)
    assert found.valid.mean() > 0.9
    points = found.points[found.valid]
    assert abs(np.linalg.norm(points, axis=1) - 2).max() < 0.02
    nearest = np.linalg.norm(points[:, None] - y, axis=2).min(1)
    assert nearest.max() < 1.1 * np.pi * 2 / 200  # half way between two targets
    if weights == "centroid":  # gaps leave the far side no share, aeot takes two at most
        across = ot.extended_map(1e-2 * x, topk=100, angle=math.pi, weights=weights).points
        assert abs(np.linalg.norm(across, axis=1) - 2).max() > 0.3


def test_what_is_kept_has_the_law_of_the_map():
    """chi2 of the cells of samples that are not rejected; a threshold too strict bends it."""
    y = clusters(200, 2)
    ot = fitted(y)
    x = ot.pairs(60_000, seed=3)[0]

    def kept(angle):
        found = ot.extended_map(x, angle=angle)
        counts = np.bincount(found.indices[found.valid, 0], minlength=200)
        return chi2_from_counts(counts, np.full(200, 1 / 200)).value, found

    plain = ot.chi2(60_000, seed=4).value
    chi2, found = kept("auto")
    assert found.valid.mean() > 0.95
    assert abs(chi2 - plain) < 0.03
    raw = ot.extended_map(x, angle=0.03)
    assert 0.05 < raw.valid.mean() < 0.95
    assert kept(0.03)[0] > plain + 0.1


def test_released_weights_depend_on_the_order_of_targets():
    """As released: 3/4 for the higher number, wherever x lies. Ours do not."""
    y = clusters(60, 3)
    order = np.arange(60)[::-1]
    first, second = fitted(y), fitted(y[order])
    x = first.pairs(1000)[0]
    a, b = (ot.extended_map(x, weights="aeot").points for ot in (first, second))
    assert (abs(a - b).max(1) > 1e-3).mean() > 0.5


@pytest.mark.parametrize("weights", ["gap", "centroid"])
def test_order_of_targets_does_not_matter(weights):
    y = clusters(60, 3)
    order = np.random.default_rng(0).permutation(60)
    first, second = fitted(y), fitted(y[order])
    x = first.pairs(1000)[0]
    a, b = first.extended_map(x, weights=weights), second.extended_map(x, weights=weights)
    np.testing.assert_array_equal(order[b.indices], a.indices)
    np.testing.assert_allclose(b.points, a.points, atol=1e-4)
    np.testing.assert_array_equal(b.valid, a.valid)


def test_automatic_angle_does_not_depend_on_scale_shift_or_rotation():
    y = clusters(100, 3).astype(np.float64)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    x = np.random.default_rng(1).normal(size=(2000, 3))
    plain, moved = fitted(y), SemiDiscreteOT(3e-3 * y @ turn.T + 7)
    moved.heights = 3e-3 * plain.heights
    a, b = plain.extended_map(x), moved.extended_map(x @ turn.T)
    assert b.angle == pytest.approx(a.angle, rel=0.1)
    apart = abs((b.points - 7) @ turn / 3e-3 - a.points).max(1)
    assert (apart < 0.05).mean() > 0.97  # angle and unit are measured on other samples
    assert (a.valid == b.valid).mean() > 0.99


def test_copies_and_targets_without_weight_are_no_candidates():
    y = clusters(20, 2)
    nu = np.full(22, 1 / 21)
    nu[4] = 0
    ot = fitted(np.concatenate([y, y[:2]]), nu)
    found = ot.extended_map(ot.pairs(500)[0], topk=40)
    assert found.indices.shape == (500, 19)
    assert set(found.indices.ravel()) == set(range(20)) - {4}


def test_kinds():
    ot = fitted(clusters(30, 3))
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    a, b = ot.extended_map(x), ot.extended_map(torch.from_numpy(x))
    for name in ("points", "indices", "weights", "valid"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert isinstance(ours, np.ndarray)
        np.testing.assert_array_equal(theirs.numpy(), ours)
    assert (a.points.dtype, a.indices.dtype, a.valid.dtype) == (np.float32, np.int64, bool)
    assert ot.extended_map(x[:0]).points.shape == (0, 3)


def test_angles_and_otsu_by_hand():
    planes = np.array([[0.0, -1.0], [1.0, 0.0], [math.sin(1e-5), -math.cos(1e-5)]])
    np.testing.assert_allclose(
        plane_angles(planes, np.array([[0, 1, 2]])), [[0, math.pi / 2, 1e-5]], rtol=1e-9
    )
    split, share = otsu(np.array([0.0, 0.1, 0.2, 0.9, 1.0]))
    assert split == pytest.approx(0.55)
    assert share > 0.9
    assert otsu(np.ones(5)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"topk": 0}, "topk is 0"),
        ({"topk": 2.0}, "topk is 2.0"),
        ({"angle": -0.1}, "angle is -0.1"),
        ({"angle": 4.0}, "angle is 4.0"),
        ({"angle": math.nan}, "angle is nan"),
        ({"angle": "wide"}, "angle is 'wide'"),
        ({"weights": "even"}, "weights is 'even', expected 'gap', 'centroid', 'aeot'"),
    ],
)
def test_wrong_options_are_named(smooth, options, says):
    ot, x = smooth
    with pytest.raises(ArgumentError, match=says):
        ot.extended_map(x, **options)

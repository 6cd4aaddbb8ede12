# SPDX-License-Identifier: Apache-2.0
"""planar_newton: masses against closed forms and counting, Newton against its own rule."""

from __future__ import annotations

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from problems import clusters

import otcuda
from otcuda._lists import planar_mass, planar_newton
from otcuda._ops import native
from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport.planar import roomy_heights


def solve(y, nu, h, source, state=None, tolerance=1e-12, iterations=40, **options):
    limits = {"tolerance": tolerance, "iterations": iterations}
    return planar_newton(y, nu, h, source, state or {}, **limits, **options)


@pytest.mark.parametrize("source", ["uniform", "normal", "gaussian_cdf"])
def test_boxes_have_the_mass_of_their_sides(source):
    """Targets on a stretched grid: cells are boxes, four of them meet at each corner."""
    a, b = np.array([0.6, 1.7, 2.0]), np.array([-1.0, 0.25, 0.75, 3.0])
    y = np.array(list(product(a, b)), np.float32)
    cuts = [np.array([0.3, 0.8]), np.array([0.125, 0.5, 0.75])]
    cdf = np.vectorize(NormalDist().cdf) if source == "normal" else np.asarray
    h = np.zeros(len(y))
    shares = []
    for values, cut, column in zip((a, b), cuts, y.T.astype(float), strict=True):
        values = values.astype(np.float32).astype(float)
        steps = np.concatenate([[0.0], -np.cumsum(np.diff(values) * cut)])
        h += steps[np.searchsorted(values, column)]
        low, high = (-9.0, 9.0) if source == "normal" else (0.0, 1.0)
        shares.append(np.diff(cdf(np.concatenate([[low], cut, [high]]))))
    expected = np.outer(*shares).ravel()
    np.testing.assert_allclose(planar_mass(y, h, source), expected, rtol=0, atol=1e-14)


def test_a_half_plane_far_out_keeps_its_digits():
    y = np.array([[1.0, 2.0], [-1.0, 0.5]], np.float32)
    length = np.hypot(2.0, 1.5)
    for distance in (0.0, 1.0, 4.0, 7.0):
        mass = planar_mass(y, np.array([-distance * length, 0.0]), "normal")
        assert mass[0] == pytest.approx(NormalDist().cdf(-distance), rel=1e-6, abs=1e-15)
        assert mass.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_cells_are_those_of_power_argmax(source):
    """Any heights, most cells empty or tiny: nothing overlaps, nothing is left out."""
    y = clusters(2000, 2)
    rng = np.random.default_rng(0)
    h = -(y.astype(float) ** 2).sum(1) / 2 + 0.01 * rng.normal(size=len(y))
    mass = planar_mass(y, h, source)
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    x = otcuda.source_samples(np.empty((200_000, 2), np.float32), source, seed=1)
    index = otcuda.power_argmax(x, y, h.astype(np.float32))[1]
    counts = np.bincount(index, minlength=len(y))
    assert counts[mass == 0].sum() < 5  # heights rounded to float32
    expected = len(x) * mass
    large = expected > 20
    assert ((counts - expected)[large] ** 2 / expected[large]).mean() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("uneven", [False, True])
def test_cells_are_balanced_to_the_last_digits(source, uneven):
    y = clusters(1000, 2)
    logs = np.random.default_rng(0).normal(size=1000)
    nu = np.exp(logs * np.log(1e6) / np.ptp(logs)) if uneven else np.ones(1000)
    nu /= nu.sum()
    h = roomy_heights(y.astype(float), source)
    found = solve(y, nu, h, source)
    mass = planar_mass(y, h, source)
    assert found["chi2"] < 1e-12
    assert not found["stuck"]
    assert abs(mass - nu).sum() < 1e-6
    assert found["chi2"] == pytest.approx(((mass - nu) ** 2 / nu).sum(), abs=1e-14)


def test_steps_keep_every_cell_and_lower_chi2_by_their_length():
    y = clusters(300, 2)
    nu = np.full(300, 1 / 300)
    h = roomy_heights(y.astype(float), "uniform")
    start = planar_mass(y, h, "uniform") / nu
    assert start.min() > 0
    state, chi2 = {}, np.inf
    for _ in range(60):
        state = solve(y, nu, h, "uniform", state, iterations=1)
        mass = planar_mass(y, h, "uniform")
        assert mass.min() / nu[0] >= 0.1 * start.min() * (1 - 1e-9)
        assert state["chi2"] < chi2
        chi2 = state["chi2"]
        if chi2 < 1e-12:
            break
    assert chi2 < 1e-12


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_a_whole_step_is_newtons(source):
    """Against a dense Hessian of differences; 90 cells are dissected twice."""
    y, nu = clusters(90, 2), np.full(90, 1 / 90)
    h = roomy_heights(y.astype(float), source)
    solve(y, nu, h, source, tolerance=1e-4)
    before = h.copy()
    found = solve(y, nu, h, source, tolerance=1e-20, iterations=1)
    assert (found["iterations"], found["diagrams"]) == (1, 2)
    unit = 1e-6 * np.ptp(before)
    hessian = np.empty((90, 90))
    for i in range(90):
        up, down = before.copy(), before.copy()
        up[i] += unit
        down[i] -= unit
        hessian[i] = (planar_mass(y, up, source) - planar_mass(y, down, source)) / (2 * unit)
    expected = np.linalg.lstsq(hessian.T, nu - planar_mass(y, before, source), rcond=1e-9)[0]
    step = h - before
    np.testing.assert_allclose(
        step - step.mean(), expected - expected.mean(), rtol=0, atol=1e-6 * abs(expected).max()
    )


def test_factors_of_the_plane_are_sparse():
    y = clusters(6000, 2)
    h = roomy_heights(y.astype(float), "uniform")
    found = solve(y, np.full(6000, 1 / 6000), h, "uniform", iterations=1)
    assert 3 * 6000 < found["entries"] < 32 * 6000  # 16,384: 32, in the order of the tree 153


def test_empty_cells_are_said_to_be_stuck():
    y = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    h = np.zeros(50)
    before = h.copy()
    assert solve(y, np.full(50, 0.02), h, "normal")["stuck"]
    np.testing.assert_array_equal(h, before)


def test_same_bits_on_any_number_of_threads(threads):
    y = clusters(1200, 2)
    h, one = (roomy_heights(y.astype(float), "normal") for _ in range(2))
    solve(y, np.full(1200, 1 / 1200), h, "normal", iterations=2)
    native.set_num_threads(1)
    solve(y, np.full(1200, 1 / 1200), one, "normal", iterations=2)
    assert h.tobytes() == one.tobytes()


def test_a_callback_stops_it_after_a_whole_step():
    y = clusters(4000, 2)
    h = roomy_heights(y.astype(float), "normal")
    before = h.copy()
    assert solve(y, np.full(4000, 1 / 4000), h, "normal", callback=lambda _: False) is None
    np.testing.assert_array_equal(h, before)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"y": np.zeros((3, 3), np.float32)}, ShapeError, "y"),
        ({"nu": np.ones(4)}, ShapeError, "nu"),
        ({"h": np.zeros(2)}, ShapeError, "h"),
        ({"source": "cube"}, ArgumentError, "cube"),
        ({"tolerance": 0.0}, ArgumentError, "tolerance"),
        ({"state": {"step": 2.0}}, ArgumentError, "step"),
    ],
)
def test_wrong_arguments_are_named(change, error, says):
    arguments = {"y": np.eye(3, 2, dtype=np.float32), "nu": np.full(3, 1 / 3), "h": np.zeros(3)}
    arguments |= {"source": "normal"} | change
    with pytest.raises(error, match=says):
        solve(**arguments)

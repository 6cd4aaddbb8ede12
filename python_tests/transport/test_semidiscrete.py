# SPDX-License-Identifier: Apache-2.0
"""SemiDiscreteOT against closed forms, POT's exact solver, and the invariances of transport."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch
from problems import KNOWN, clusters, lattice, line, product_of_lines, two_targets

import otcuda
from otcuda.transport import SemiDiscreteOT

M = 40_000  # fresh samples of a measurement


def fitted(y, nu=None, source="normal", **options):
    ot = SemiDiscreteOT(y, nu, source)
    result = ot.fit(**options)
    assert result.converged, result
    return ot


def dual(ot, x, h):
    """F(h) = E phi_h(x) - <nu, h> over the samples x, float64."""
    return (x @ ot.y.T + h).max(1).mean() - ot.nu @ h


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_known_heights_pass_and_zeros_fail(known):
    """Convention, source and measurement agree with the closed form; zeros do not."""
    ot = SemiDiscreteOT(known.y, known.nu, known.source)
    ot.heights = known.heights
    right = ot.chi2(M)
    assert right.interval[0] == 0 or right.value < 1e-3  # float32 ties of the lattice
    assert right.interval[1] < 2e-3
    ot.heights = np.zeros(ot.N)
    if abs(known.heights).max() > 0:
        assert ot.chi2(M).interval[0] > 0.1


@pytest.mark.parametrize("known", KNOWN[:-1], ids=str)
def test_fit_finds_the_known_heights(known):
    ot = fitted(known.y, known.nu, known.source)
    fresh = ot.chi2(M, seed=5)
    assert fresh.interval[0] < 0.02
    assert fresh.value < 0.025
    size = known.heights.std() or 1.0
    assert np.sqrt(known.nu @ (ot.heights - known.heights) ** 2) < 0.25 * size
    assert abs(known.nu @ ot.heights) < 1e-6
    np.testing.assert_allclose(ot.mass(M), known.nu, atol=0.01 + 0.3 * known.nu.max())


@pytest.mark.parametrize("source", ["normal", "uniform", "gaussian_cdf"])
@pytest.mark.parametrize("N", [1, 2, 17, 1000])
def test_the_line_is_exact(N, source):
    known = line(N, "normal" if source == "normal" else "uniform")
    ot = fitted(known.y, known.nu, source)
    assert ot.result.stopped_by == "closed_form"
    assert ot.result.samples == 0
    np.testing.assert_allclose(ot.heights, known.heights, atol=1e-9)
    inside = (np.arange(200_000) + 0.5) / 200_000  # midpoints: masses to 1 / 200,000
    x = ot.source.quantile(inside)
    mass = np.bincount(ot.assign(x[:, None]), minlength=N) / len(x)
    np.testing.assert_allclose(mass, known.nu, atol=1.1e-5)


def test_the_line_without_quantiles_is_solved_by_iterating():
    known = line(20, "normal")
    ot = fitted(known.y, known.nu, lambda n, seed: np.random.default_rng(seed).normal(size=(n, 1)))
    assert ot.result.stopped_by == "chi2"
    np.testing.assert_allclose(ot.heights, known.heights, atol=0.1)


def empirical(seed, M=120, N=10, D=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(M, D)), rng.normal(size=(N, D)) + 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimal_cost_of_pots_exact_solver(seed):
    """Duality: 1/2 E|x|^2 + 1/2 sum nu |y|^2 - F(h) <= cost / 2, and equal at the optimum."""
    x, y = empirical(seed)
    nu = np.full(10, 0.1)
    cost = pot.emd2(np.full(120, 1 / 120), nu, pot.dist(x, y)) / 2
    ot = fitted(y, nu, x, chi2=1e-9)  # 12 points each: only the exact coupling is good enough
    best = (x**2).sum(1).mean() / 2 + nu @ (y**2).sum(1) / 2
    assert -1e-9 < cost - (best - dual(ot, x, ot.heights.astype(float))) < 1e-3 * cost
    assert ((x - ot.transport(x)) ** 2).sum(1).mean() / 2 == pytest.approx(cost, rel=1e-9)
    assert ot.chi2(120).exact
    np.testing.assert_allclose(ot.mass(120), nu, atol=1e-12)
    ot.heights = np.zeros(10)
    assert ((x - ot.transport(x)) ** 2).sum(1).mean() / 2 > 1.05 * cost


def test_weights_that_no_coupling_without_ties_can_meet():
    """Points must be split: the dual reaches POT's cost, and chi2 is honest about the rest."""
    x, y = empirical(3)
    nu = np.random.default_rng(0).dirichlet(np.ones(10))
    cost = pot.emd2(np.full(120, 1 / 120), nu, pot.dist(x, y)) / 2
    ot = SemiDiscreteOT(y, nu, x)
    result = ot.fit(chi2=1e-9, max_samples=400_000)
    assert not result.converged
    assert result.stopped_by in ("samples", "stalled")
    best = (x**2).sum(1).mean() / 2 + nu @ (y**2).sum(1) / 2
    assert 0 <= cost - (best - dual(ot, x, ot.heights.astype(float))) < 2e-3 * cost


def test_dual_is_lowest_at_the_fit():
    x, y = empirical(4)
    ot = fitted(y, None, x, chi2=1e-9)
    h = ot.heights.astype(float)
    rng = np.random.default_rng(0)
    others = [dual(ot, x, h + 0.1 * rng.normal(size=10)) for _ in range(50)]
    assert min(others) > dual(ot, x, h)
    assert dual(ot, x, np.zeros(10)) > dual(ot, x, h)


def test_map_is_monotone():
    ot = fitted(clusters(200, 3))
    x = ot.pairs(20_000)[0].astype(np.float64)
    image = ot.transport(x)
    inner = ((x[::2] - x[1::2]) * (image[::2] - image[1::2])).sum(1)
    assert inner.min() >= -1e-6
    assert inner.mean() > 0.1


def test_permuted_targets_give_permuted_heights_bit_for_bit():
    y = clusters(150, 4)
    order = np.random.default_rng(0).permutation(150)
    np.testing.assert_array_equal(fitted(y).heights[order], fitted(y[order]).heights)


def test_shift_scale_and_rotation():
    y = clusters(100, 3).astype(np.float64)
    ot = fitted(y)
    x = ot.pairs(4000)[0].astype(np.float64)
    far = fitted(y + 1e4)
    assert (far.assign(x) == ot.assign(x)).mean() > 0.96
    small = fitted(1e-4 * y)
    assert (small.assign(x) == ot.assign(x)).mean() > 0.96
    np.testing.assert_allclose(small.heights, 1e-4 * ot.heights, atol=1e-5)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    ot.heights, turned = ot.heights, SemiDiscreteOT(y @ turn.T)
    turned.heights = ot.heights
    np.testing.assert_array_equal(turned.assign(x @ turn.T), ot.assign(x))


def test_copies_share_heights_and_divide_their_mass():
    y = clusters(60, 2)
    nu = np.random.default_rng(1).dirichlet(np.full(63, 5.0))
    with_copies = np.concatenate([y, y[[7]], y[[3]], y[[3]] + 0.0])
    ot = fitted(with_copies, nu)
    h = ot.heights
    assert h[60] == h[7]
    assert h[61] == h[62] == h[3]
    mass = ot.mass(M)
    assert mass[61] / mass[3] == pytest.approx(nu[61] / nu[3])
    assert mass[[3, 61, 62]].sum() == pytest.approx(nu[[3, 61, 62]].sum(), rel=0.3)
    assert not np.isin(ot.assign(ot.pairs(M)[0]), [60, 61, 62]).any()  # the lowest copy wins
    drawn = np.bincount(ot.pairs(M, seed=1)[2], minlength=63) / M
    np.testing.assert_allclose(drawn[[3, 61, 62]] / mass[[3, 61, 62]], 1, atol=0.25)
    merged = np.array([nu[i] for i in range(60)])
    merged[7] += nu[60]
    merged[3] += nu[61] + nu[62]
    np.testing.assert_allclose(fitted(y, merged).heights, h[:60], atol=1e-5)


def test_one_target_takes_everything():
    ot = fitted(np.array([[3.0, -1.0]]))
    assert (ot.result.chi2, ot.result.chi2_interval, ot.heights.tolist()) == (0, (0, 0), [0])
    np.testing.assert_array_equal(ot.sample(3), [[3.0, -1.0]] * 3)
    copies = fitted(np.ones((4, 2)))
    assert copies.heights.tolist() == [0] * 4
    assert set(copies.pairs(100)[2]) == {0, 1, 2, 3}


def test_targets_without_weight_are_left_out():
    y = clusters(50, 3)
    nu = np.full(50, 1 / 48)
    nu[[10, 20]] = 0
    ot = fitted(y, nu)
    assert np.isneginf(ot.heights[[10, 20]]).all()
    assert np.isfinite(np.delete(ot.heights, [10, 20])).all()
    assert ot.mass(M)[[10, 20]].tolist() == [0, 0]
    assert not np.isin(ot.assign(100 * y), [10, 20]).any()
    others = np.delete(np.arange(50), [10, 20])
    np.testing.assert_array_equal(fitted(y[others]).heights, ot.heights[others])


def test_weights_from_a_millionth_to_a_half():
    nu = np.ones(200)
    nu[:3] = 0, 1e-6, 0.5
    nu[3:] *= (1 - nu[:3].sum()) / 197
    ot = fitted(clusters(200, 4), nu, max_samples=2_000_000)
    mass = ot.mass(200_000)
    assert mass[2] == pytest.approx(0.5, abs=0.02)
    assert mass[1] < 5e-5
    assert abs(mass - nu).sum() < 0.1


@pytest.mark.parametrize(
    ("D", "source"), [(2, "uniform"), (16, "normal"), (64, "uniform"), (64, "gaussian_cdf")]
)
def test_converges_on_clusters(D, source):
    ot = fitted(clusters(300, D), None, source)
    fresh = ot.chi2(200_000, seed=9)
    assert fresh.interval[1] < 0.025
    assert ot.result.samples == 0 if D == 2 else ot.result.efficiency > 0.02
    ot.heights = np.zeros(300)
    assert ot.chi2(M).interval[0] > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("kind", "D", "source"),
    [("normal", 16, "normal"), ("normal", 3, "normal"), ("clusters", 64, "uniform")],
)
def test_efficiency(kind, D, source, seed):
    """Of samples a third of what averaging can make of them; no option."""
    N = 1024
    y = clusters(N, D) if kind == "clusters" else np.random.default_rng(0).normal(size=(N, D))
    ot = SemiDiscreteOT(y.astype(np.float32), None, source)
    result = ot.fit(chi2=1e-3, max_samples=150 * N, seed=seed)
    truth = ot.chi2(400 * N, seed=9).value
    assert (N - 1) / (result.samples * truth) > 1 / 3


def test_sampling_and_pairs_follow_the_map():
    ot = fitted(clusters(40, 3))
    x, y, i = ot.pairs(500, seed=3)
    np.testing.assert_array_equal(y, ot.transport(x))
    np.testing.assert_array_equal(i, ot.assign(x))
    np.testing.assert_array_equal(y, ot.y[i])
    np.testing.assert_array_equal(ot.sample(500, seed=3), y)
    assert (ot.sample(500, seed=4) != y).any()
    value, index = otcuda.power_argmax(x, ot.y, ot.heights)
    np.testing.assert_array_equal(index, i)
    np.testing.assert_allclose(ot.potential(x), value, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_potential_is_the_map():
    ot = fitted(torch.from_numpy(clusters(40, 3)))
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ot.potential(x).sum().backward()
    torch.testing.assert_close(x.grad, ot.transport(x.detach()))


def test_same_seed_same_heights_on_any_number_of_threads():
    y = clusters(100, 5)
    heights = []
    for n in (1, 2, 3):
        otcuda.set_num_threads(n)
        heights.append(fitted(y, seed=4).heights)
    otcuda.set_num_threads(0)
    np.testing.assert_array_equal(heights[0], heights[1])
    np.testing.assert_array_equal(heights[0], heights[2])
    assert (fitted(y, seed=5).heights != heights[0]).any()


@pytest.mark.parametrize(
    "known", [two_targets(0.3, 2), lattice(3, 2), product_of_lines(3, 3, "normal")], ids=str
)
def test_a_sampler_gives_what_the_named_source_gives(known):
    def sampler(n, seed):
        rng = np.random.default_rng(seed)
        D = known.y.shape[1]
        return rng.normal(size=(n, D)) if known.source == "normal" else rng.random((n, D))

    ot = fitted(known.y, known.nu, sampler)
    ot_named = fitted(known.y, known.nu, known.source)
    assert np.sqrt(known.nu @ (ot.heights - ot_named.heights) ** 2) < 0.25 * known.heights.std()


def test_neighbours_on_a_line_and_in_a_lattice():
    y = np.arange(6.0)[:, None] * 0.5
    ot = fitted(y, source="normal")
    pairs, hits = ot.neighbours(20_000)
    assert pairs.tolist() == [[k, k + 1] for k in range(5)]
    assert hits.sum() == 20_000
    side = (np.arange(4) + 0.5) / 4
    y = np.array([[a, b] for a in side for b in side])
    grid = SemiDiscreteOT(y, source="uniform")
    grid.heights = -(y**2).sum(1) / 2
    pairs, hits = grid.neighbours(50_000)
    facets = [(i, j) for i, j in pairs.tolist() if abs(y[i] - y[j]).sum() < 0.26]
    assert len(facets) == 24 == len(pairs)
    assert fitted(y[:1]).neighbours(10)[0].shape == (0, 2)


def test_dataloader_gives_fresh_coupled_batches():
    ot = fitted(clusters(40, 3), chi2=0.1)
    batches = list(ot.to_dataloader(16, batches=3, seed=4))
    assert len(batches) == 3
    for x, image in batches:
        np.testing.assert_array_equal(ot.transport(x), image)
    assert (batches[0][0] != batches[1][0]).all()
    again = next(iter(ot.to_dataloader(16, seed=4)))
    np.testing.assert_array_equal(again[0], batches[0][0])

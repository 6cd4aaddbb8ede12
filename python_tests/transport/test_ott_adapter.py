# SPDX-License-Identifier: Apache-2.0
"""The door for users of OTT-JAX: their script, their problem, their measure."""

from __future__ import annotations

import numpy as np
import pytest
from problems import clusters

from otcuda.errors import ArgumentError
from otcuda.transport import SemiDiscreteOT, adapters
from otcuda.transport.ott_adapter import SemidiscreteOutput, SemidiscreteSolver, seed_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def output():
    ot = SemiDiscreteOT(clusters(60, 3))
    return SemidiscreteSolver(threshold=0.05)(3, ot)


def test_output_has_their_names_and_our_numbers(output):
    assert output.converged
    assert output.errors[-1] == output.result.chi2
    assert output.it == len(output.result.history)
    h = (output.g - (output.ot.y**2).sum(1)) / 2
    np.testing.assert_allclose(h - h.mean(), output.ot.heights, atol=1e-5)
    assert adapters.SemidiscreteOutput is SemidiscreteOutput
    again = SemidiscreteOutput(output.ot)
    assert again.losses == output.losses


def test_sample_is_a_coupling(output):
    found = output.sample(5, 2000)
    index = found.paired_indices[1]
    np.testing.assert_array_equal(index, output.ot.assign(found.x.astype(np.float32)))
    cost = ((found.x[:, None] - output.ot.y) ** 2).sum(2)
    np.testing.assert_allclose(found.f, (cost - output.g).min(1), atol=1e-4)
    np.testing.assert_allclose(found.primal_cost, cost[np.arange(2000), index].mean(), rtol=1e-6)
    # Both costs agree on samples whose masses are right, up to noise.
    assert found.dual_cost == pytest.approx(found.primal_cost, rel=0.05)
    assert found.matrix.shape == (2000, 60)
    assert found.matrix.sum() == pytest.approx(1)
    assert abs(output.losses[0] + found.dual_cost) < 0.1 * found.dual_cost


def test_loader_and_chi2(output):
    loader = output.to_dataloader(1, 64, return_indices=True)
    x, y, index = next(loader)
    np.testing.assert_array_equal(y, output.ot.y[index])
    assert not (next(loader)[0] == x).all()
    assert len(next(iter(output.to_dataloader(1, 8)))) == 2
    error = output.marginal_chi2_error(2, num_iters=16, batch_size=4096)
    assert -0.01 < error < 0.05


def test_limit_and_wrong_arguments(output):
    short = SemidiscreteSolver(num_iterations=10, batch_size=2000, threshold=1e-5)(0, output.ot)
    assert not short.converged
    assert short.result.scanned <= 20_000
    with pytest.raises(ArgumentError, match="rng is str"):
        seed_of("seed")
    with pytest.raises(ArgumentError, match="prob is int"):
        SemidiscreteSolver()(0, 7)
    with pytest.raises(ArgumentError, match=r"epsilon is 0\.1"):
        output.sample(0, 5, epsilon=0.1)


def script(solver_class, rng, prob):
    """What a user of OTT-JAX has: nothing in it but the class is ours."""
    import optax

    solver = solver_class(
        num_iterations=4000, batch_size=128, optimizer=optax.sgd(2.0), threshold=0.02,
        error_eval_every=500, error_num_repeats=64,
    )  # fmt: skip
    out = solver(rng, prob)
    x, y = next(iter(out.to_dataloader(rng, batch_size=32)))
    error = out.marginal_chi2_error(rng, num_iters=64, batch_size=1024)
    return out, np.asarray(x), np.asarray(y), float(error), out.sample(rng, 500)


@pytest.mark.slow
def test_the_same_script_runs_with_theirs_and_ours():
    jax = pytest.importorskip("jax", reason="OTT-JAX is not installed")
    pytest.importorskip("ott", reason="OTT-JAX is not installed")
    from ott.geometry.semidiscrete_pointcloud import SemidiscretePointCloud
    from ott.problems.linear.semidiscrete_linear_problem import SemidiscreteLinearProblem
    from ott.solvers.linear import semidiscrete as theirs

    targets = jax.numpy.asarray(clusters(40, 2))
    prob = SemidiscreteLinearProblem(
        SemidiscretePointCloud(jax.random.normal, targets, epsilon=0.0)
    )
    rng = jax.random.key(0)
    ours, x, y, error, sample = script(SemidiscreteSolver, rng, prob)
    other, their_x, their_y, their_error, their_sample = script(
        theirs.SemidiscreteSolver, rng, prob
    )
    assert (x.shape, y.shape) == (their_x.shape, their_y.shape)
    assert sample.paired_indices.shape == their_sample.paired_indices.shape
    assert ours.converged
    assert -0.01 < error < 0.02
    assert error < their_error + 0.02
    # Their measure of our potential, and ours of theirs.
    judged = theirs.SemidiscreteOutput(jax.numpy.asarray(ours.g, jax.numpy.float32), prob)
    assert float(judged.marginal_chi2_error(rng, num_iters=64, batch_size=1024)) < 0.03
    g, their_g = ours.g - ours.g.mean(), np.asarray(other.g) - np.asarray(other.g).mean()
    assert np.corrcoef(g, their_g)[0, 1] > 0.99
    ot = SemiDiscreteOT(clusters(40, 2))
    ot.heights = (np.asarray(other.g, np.float64) - (ot.y**2).sum(1)) / 2
    assert ot.chi2(65536).value == pytest.approx(their_error, abs=0.02)
    assert sample.dual_cost == pytest.approx(float(their_sample.dual_cost), rel=0.2)
    keys = {seed_of(each) for each in (rng, jax.random.key(1), jax.random.PRNGKey(2))}
    assert len(keys) == 3
    # A sampler of the user's own is called as they call it.
    own = SemidiscretePointCloud(
        lambda key, shape, dtype=None: 1 + 0.5 * jax.random.normal(key, shape, dtype), targets,
        epsilon=0.0,
    )  # fmt: skip
    out = SemidiscreteSolver(threshold=0.1)(rng, SemidiscreteLinearProblem(own))
    assert out.converged
    assert abs(out.sample(rng, 4000).x.mean() - 1) < 0.1
    with pytest.raises(ArgumentError, match="epsilon"):
        SemidiscreteSolver()(
            rng,
            SemidiscreteLinearProblem(
                SemidiscretePointCloud(jax.random.normal, targets, epsilon=0.1)
            ),
        )

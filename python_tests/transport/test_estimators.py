# SPDX-License-Identifier: Apache-2.0
"""chi2 of counts: no bias, honest intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from otcuda.transport.estimators import chi2_exact, chi2_from_counts, samples_to_certify

REPEATS = 400


def masses(N, wobble, seed=0):
    rng = np.random.default_rng(seed)
    nu = rng.uniform(0.2, 1, N)
    mass = nu * (1 + wobble * rng.uniform(-1, 1, N))
    return mass / mass.sum(), nu / nu.sum()


def estimates(N, wobble, M, estimate):
    mass, nu = masses(N, wobble)
    counts = np.random.default_rng(1).multinomial(M, mass, REPEATS)
    return ((mass - nu) ** 2 / nu).sum(), [estimate(c, nu) for c in counts]


def plug_in(counts, nu):
    return ((counts / counts.sum() - nu) ** 2 / nu).sum()


def standard_errors_off(truth, values):
    return abs(np.mean(values) - truth) / (np.std(values) / math.sqrt(len(values)))


@pytest.mark.parametrize(("N", "wobble", "M"), [(50, 0.0, 500), (50, 0.9, 500), (1000, 0.3, 2000)])
def test_estimate_has_no_bias_where_the_plug_in_has(N, wobble, M):
    truth, values = estimates(N, wobble, M, lambda c, nu: chi2_from_counts(c, nu).value)
    assert standard_errors_off(truth, values) < 3
    truth, naive = estimates(N, wobble, M, plug_in)
    assert standard_errors_off(truth, naive) > 10


@pytest.mark.parametrize(("N", "wobble", "M"), [(50, 0.0, 500), (50, 0.9, 500), (1000, 0.3, 2000)])
def test_interval_covers_the_truth_nineteen_times_in_twenty(N, wobble, M):
    truth, values = estimates(N, wobble, M, chi2_from_counts)
    covered = np.mean([v.interval[0] <= truth <= v.interval[1] for v in values])
    assert 0.91 <= covered <= (0.99 if wobble else 1)  # cut off at 0, where the truth is
    widths = [v.interval[1] - v.value for v in values]
    assert 1.5 < np.mean(widths) / np.std([v.value for v in values]) < 2.5


def test_few_samples_never_certify():
    """20 samples in 20 of 1000 cells: the estimate is -1, the interval must stay wide."""
    counts = np.zeros(1000, int)
    counts[:20] = 1
    found = chi2_from_counts(counts, np.full(1000, 1e-3))
    assert found.value == -1
    assert found.interval[1] > 2
    assert math.isnan(chi2_from_counts(counts * 0, np.full(1000, 1e-3)).value)
    assert chi2_from_counts(counts * 0, np.full(1000, 1e-3)).interval == (0, math.inf)


def test_exact_and_certificate_size():
    found = chi2_exact(np.array([0.75, 0.25]), np.array([0.5, 0.5]), 4)
    assert (float(found), found.interval, found.exact) == (0.25, (0.25, 0.25), True)
    N, M = 1024, samples_to_certify(1024, 0.02)
    counts = np.random.default_rng(0).multinomial(M, np.full(N, 1 / N), 50)
    spread = np.std([chi2_from_counts(c, np.full(N, 1 / N)).value for c in counts])
    assert spread == pytest.approx(0.002, rel=0.3)

# SPDX-License-Identifier: Apache-2.0
"""The doors for users of POT and torchcfm: the same answers as theirs, in their terms."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from problems import clusters

from otcuda.errors import ArgumentError
from otcuda.transport import SemiDiscreteOT, adapters

NAMES = ["semidiscrete_ot_map", "semidiscrete_c_transform", "semidiscrete_atom_weights"]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("name", NAMES)
def test_pots_functions_say_the_same(name, kind):
    theirs = pytest.importorskip("ot.semidiscrete")
    rng = np.random.default_rng(0)
    y, x = kind(rng.normal(size=(40, 3))), kind(rng.normal(size=(100, 3)))
    g = kind(rng.normal(size=40))
    mine, truth = getattr(adapters, name)(y, x, g), getattr(theirs, name)(y, x, g)
    assert type(mine) is type(truth)
    np.testing.assert_allclose(np.asarray(mine), np.asarray(truth), atol=1e-9)
    assert inspect.signature(getattr(adapters, name)).parameters.keys() == set(
        inspect.signature(getattr(theirs, name)).parameters
    )


def test_pots_solver_by_its_own_map():
    """Their map with our potential gives each target its weight."""
    theirs = pytest.importorskip("ot.semidiscrete")
    y = clusters(60, 3).astype(np.float64)
    g, log = adapters.solve_semidiscrete(y, "normal", chi2=0.02, log=True)
    assert log["result"].converged
    assert abs(g.mean()) < 1e-9
    x = np.random.default_rng(1).normal(size=(60_000, 3))
    counts = theirs.semidiscrete_atom_weights(y, x, g).sum(0)
    assert ((counts / 1000 - 1) ** 2).mean() < 0.03
    with pytest.raises(ArgumentError, match="reg"):
        adapters.solve_semidiscrete(y, reg=0.1)
    with pytest.raises(ArgumentError, match="metric"):
        adapters.solve_semidiscrete(y, metric="euclidean")


def test_plan_sampler_couples_with_the_whole_set():
    y = torch.from_numpy(clusters(80, 2))
    ot = SemiDiscreteOT(y)
    ot.fit(chi2=0.05)
    labels = torch.arange(80) % 7
    sampler = adapters.SemiDiscretePlanSampler(ot, labels)
    x0 = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    same, x1 = sampler.sample_plan(x0, torch.zeros_like(x0))
    assert same is x0
    torch.testing.assert_close(x1, y[ot.assign(x0)])
    _, x1, y0, y1 = sampler.sample_plan_with_labels(x0, y0=labels)
    assert (y1 == labels[ot.assign(x0)]).all()
    assert y0 is labels
    assert (torch.bincount(ot.assign(x0), minlength=80) > 0).all()
    with pytest.raises(ArgumentError, match="labels"):
        adapters.SemiDiscretePlanSampler(ot).sample_plan_with_labels(x0)

# SPDX-License-Identifier: Apache-2.0
"""The doors for users of POT and torchcfm: the same answers as theirs, in their terms."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from problems import clusters

from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport import ClassedOT, SemiDiscreteOT, adapters

NAMES = ["semidiscrete_ot_map", "semidiscrete_c_transform", "semidiscrete_atom_weights"]


@pytest.mark.parametrize("reg", [0.0, 0.5])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("name", NAMES)
def test_pots_functions_say_the_same(name, kind, reg):
    theirs = pytest.importorskip("ot.semidiscrete")
    rng = np.random.default_rng(0)
    y, x = kind(rng.normal(size=(40, 3))), kind(rng.normal(size=(100, 3)))
    g = kind(rng.normal(size=40))
    a = None if reg == 0 else kind(np.arange(1, 41) / 820)
    mine, truth = (getattr(door, name)(y, x, g, a, reg=reg) for door in (adapters, theirs))
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
    with pytest.raises(ArgumentError, match=r"reg is 0\.1, expected 0"):
        adapters.solve_semidiscrete(y, reg=0.1)
    with pytest.raises(ArgumentError, match="metric"):
        adapters.solve_semidiscrete(y, metric="euclidean")
    with pytest.raises(ArgumentError, match="reg is -1"):
        adapters.semidiscrete_ot_map(y, x, g, reg=-1)


def pot_script(door, y, source):
    """What a user of POT has: nothing in it but the module is ours."""
    g, log = door.solve_semidiscrete(
        y, source, max_iter=3000, batch_size=64, lr0=10.0, polyak_average=True, log=True
    )
    assert log["batch_size"] == 64
    x = np.random.default_rng(1).normal(size=(20_000, 2)) * 0.3
    image = door.semidiscrete_ot_map(y, x, g)
    return g, image, door.semidiscrete_c_transform(y, x, g)


@pytest.mark.parametrize("source", ["unif", "ball", "normal"])
def test_the_same_script_of_pot_runs_with_theirs_and_ours(source):
    theirs = pytest.importorskip("ot.semidiscrete")
    y = np.random.default_rng(0).normal(size=(12, 2))
    np.random.seed(0)  # noqa: NPY002 - POT's samplers draw from it
    ours, other = pot_script(adapters, y, source), pot_script(theirs, y, source)
    np.testing.assert_allclose(ours[0] - ours[0].mean(), other[0] - other[0].mean(), atol=0.4)
    assert (ours[1] == other[1]).all(1).mean() > 0.85
    assert ours[2].shape == other[2].shape


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


def test_plan_sampler_takes_pictures_and_classes():
    y, classes = clusters(90, 12), np.arange(90) % 3
    ot = SemiDiscreteOT(torch.from_numpy(y))
    ot.fit(chi2=0.3)
    x0 = torch.randn(50, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    _, x1 = adapters.SemiDiscretePlanSampler(ot).sample_plan(x0)
    assert x1.shape == x0.shape
    index = ot.assign(x0.flatten(1))
    torch.testing.assert_close(x1.flatten(1), ot.y[index])
    sampler = adapters.SemiDiscretePlanSampler(ot, classes)
    assert (sampler.sample_plan_with_labels(x0)[3] == classes[index.numpy()]).all()
    classed = ClassedOT(torch.from_numpy(y), classes)
    classed.fit(chi2=0.3)
    sampler, wanted = adapters.SemiDiscretePlanSampler(classed), torch.arange(50) % 3
    _, x1, _, y1 = sampler.sample_plan_with_labels(x0, y1=wanted)
    assert y1 is wanted
    found = (x1.flatten(1)[:, None] == torch.from_numpy(y)).all(2).int().argmax(1)
    assert (found % 3 == wanted).all()
    with pytest.raises(ArgumentError, match="sample_plan_with_labels only"):
        sampler.sample_plan(x0)
    with pytest.raises(ArgumentError, match="needs y1"):
        sampler.sample_plan_with_labels(x0)


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_pots_functions_take_lists_and_name_what_does_not_fit(reg):
    y, x, g = clusters(20, 3).astype(float), np.zeros((4, 3)), np.arange(20.0)
    for name in NAMES:
        door = getattr(adapters, name)
        expected = door(y, x, g, reg=reg)
        np.testing.assert_array_equal(door(y.tolist(), x.tolist(), g.tolist(), reg=reg), expected)
        with pytest.raises(
            ShapeError, match=r"semi_dual_potential has shape \[5\], expected \[20\]"
        ):
            door(y, x, g[:5], reg=reg)
        with pytest.raises(ShapeError, match=r"shape \[4, 2\], expected \[B, 3\]"):
            door(y, x[:, :2], g, reg=reg)
        with pytest.raises(ArgumentError, match="negative"):
            door(y, x, g, -np.full(20, 0.05), reg=reg)
        with pytest.raises(ShapeError, match=r"nu \[3\]"):
            door(y, x, g, np.full(3, 1 / 3), reg=reg)
    assert adapters.solve_semidiscrete(y.tolist(), "ball", chi2=0.5).shape == (20,)


def test_plan_sampler_takes_lists_and_names_what_does_not_fit():
    ot = SemiDiscreteOT(clusters(20, 3))
    ot.fit(chi2=0.5)
    with pytest.raises(ArgumentError, match="ot is str, expected a SemiDiscreteOT"):
        adapters.SemiDiscretePlanSampler("exact")
    with pytest.raises(ShapeError, match=r"labels has shape \[4\], expected \[20\]"):
        adapters.SemiDiscretePlanSampler(ot, np.arange(4))
    sampler = adapters.SemiDiscretePlanSampler(ot, list(range(20)))
    x0 = np.eye(3).tolist()
    np.testing.assert_array_equal(sampler.sample_plan(x0)[1], ot.transport(np.eye(3)))
    np.testing.assert_array_equal(sampler.sample_plan_with_labels(x0)[3], ot.assign(np.eye(3)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torchcfm_trains_with_it_in_the_place_of_its_own():
    torchcfm = pytest.importorskip("torchcfm", reason="torchcfm is not installed")
    y = torch.from_numpy(clusters(80, 2))
    ot = SemiDiscreteOT(y)
    ot.fit(chi2=0.05)
    matcher = torchcfm.ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    matcher.ot_sampler = adapters.SemiDiscretePlanSampler(ot, torch.arange(80))
    x0 = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    t, x, velocity = matcher.sample_location_and_conditional_flow(x0, torch.zeros_like(x0))
    torch.testing.assert_close(velocity, ot.transport(x0) - x0)
    torch.testing.assert_close(x, x0 + t[:, None] * velocity)
    found = matcher.guided_sample_location_and_conditional_flow(x0, x0, y1=torch.arange(500))
    assert (found[4] == ot.assign(x0)).all()
    # Theirs couples within the batch alone, and pays for it on average.
    own = torchcfm.ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    random, costs = torch.Generator().manual_seed(1), []
    for _ in range(200):
        x0, batch = torch.randn(8, 2, generator=random), torch.randint(80, (8,), generator=random)
        pairs = own.ot_sampler.sample_plan(x0, y[batch])
        costs.append((pairs[0] - pairs[1]).square().sum(1).mean())
    x0 = torch.randn(20_000, 2, generator=random)
    assert torch.stack(costs).mean() > 1.2 * (x0 - ot.transport(x0)).square().sum(1).mean()

# SPDX-License-Identifier: Apache-2.0
"""A problem for each class: what each gets, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from problems import clusters

from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport import ClassedOT, SemiDiscreteOT

Y = clusters(120, 3)
OF = np.random.default_rng(1).integers(0, 4, 120) * 5 - 5  # -5, 0, 5, 10


def test_each_class_is_the_problem_of_its_targets():
    ot = ClassedOT(Y, OF)
    results = ot.fit(chi2=0.05)
    assert sorted(results) == [-5, 0, 5, 10]
    assert all(result.converged for result in results.values())
    x = np.random.default_rng(2).normal(size=(40_000, 3)).astype(np.float32)
    wanted = np.random.default_rng(3).choice([-5, 0, 5, 10], 40_000)
    index = ot.assign(x, wanted)
    np.testing.assert_array_equal(OF[index], wanted)
    np.testing.assert_array_equal(ot.transport(x, wanted), Y[index])
    for c in (-5, 10):
        own = SemiDiscreteOT(Y[c == OF])
        own.heights = ot[c].heights
        mine = np.flatnonzero(c == OF)[own.assign(x[wanted == c])]
        np.testing.assert_array_equal(mine, index[wanted == c])
    mass = np.bincount(index, minlength=120)
    for c in (-5, 0, 5, 10):  # each target of a class receives its share
        share = mass[c == OF] / mass[c == OF].sum() * (c == OF).sum()
        assert ((share - 1) ** 2).mean() < 0.06


def test_a_class_does_not_depend_on_the_others():
    whole, alone = ClassedOT(Y, OF), ClassedOT(Y[OF == 5], OF[OF == 5])
    for ot in (whole, alone):
        ot.fit(chi2=0.2, seed=4)
    np.testing.assert_array_equal(whole[5].heights, alone[5].heights)


def test_kind_weights_and_time():
    nu = np.random.default_rng(0).random(120)
    ot = ClassedOT(torch.from_numpy(Y), torch.from_numpy(OF), nu)
    np.testing.assert_allclose(ot[0].nu, nu[OF == 0] / nu[OF == 0].sum())
    began = time.process_time()
    results = ot.fit(chi2=1e-9, max_seconds=0.4)
    assert time.process_time() - began < 1.5
    assert {result.stopped_by for result in results.values()} <= {"seconds", "stalled"}
    x = torch.zeros(5, 3)
    assert isinstance(ot.assign(x, torch.zeros(5, dtype=torch.int64)), torch.Tensor)
    assert ot.transport(x, [0] * 5).dtype == torch.float32
    lists = ClassedOT(Y.tolist(), OF.tolist())
    lists.fit(chi2=0.5)
    assert (OF[lists.assign(Y.tolist(), OF.tolist())] == OF).all()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: ClassedOT(Y, OF[:-1]), ShapeError, r"classes has shape \[119\]"),
        (lambda: ClassedOT(Y, OF * 0.5), ArgumentError, "classes is float64"),
        (lambda: ClassedOT(Y, OF, np.ones(3)), ShapeError, r"nu has shape \[3\]"),
        (lambda: ClassedOT(Y, OF, OF != 0), ArgumentError, "nu gives class 0"),
        (lambda: ClassedOT(Y, OF)[1], ArgumentError, "class 1 has no target; there are -5, 0"),
        (lambda: ClassedOT(Y, OF)["a"], ArgumentError, "class 'a' has no target"),
        (lambda: ClassedOT(Y, OF)[0.5], ArgumentError, "class 0.5 has no target"),
        (lambda: ClassedOT(Y[:, 0], OF), ShapeError, r"takes y \[N, D\].*got \[120\]"),
        (lambda: ClassedOT(Y[:0], OF[:0]), ShapeError, r"got \[0, 3\]"),
        (lambda: ClassedOT(Y, OF).assign(Y, OF[:3]), ShapeError, r"\[3\], expected \[B\]"),
        (lambda: ClassedOT(Y, OF).fit(checkpoint="a"), ArgumentError, "no checkpoint"),
        (lambda: ClassedOT(Y, OF).fit(seed=-1), ArgumentError, "seed is -1"),
    ],
)
def test_wrong_arguments_are_named(call, error, says):
    with pytest.raises(error, match=says):
        call()

# SPDX-License-Identifier: Apache-2.0
"""list_newton: measures against plain loops, balance on complete lists, the same bits always."""

from __future__ import annotations

import numpy as np
import pytest

from otcuda._lists import Lists, top_cells
from otcuda._ops import native
from otcuda.errors import ArgumentError


def problem(M=4000, N=16, D=3, K=16, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(M, D)).astype("f4"), rng.normal(size=(N, D)).astype("f4")
    h = -(y.astype(float) ** 2).sum(1) / 2
    lists = Lists(np.empty((M, K), np.int32), np.empty((M, K), "f4"), np.empty(M, "f4"))
    top_cells(x, y, h.astype("f4"), lists.arrays())
    best = lists.inner[:, 0] + h.astype("f4")[lists.index[:, 0]]
    lists.reach = np.where(np.isfinite(lists.reach), best - lists.reach, np.float32(1e9))
    return x, y, h, lists


def test_measures_are_those_of_a_plain_loop(threads):
    x, _, h, lists = problem(N=40)
    h = h + np.random.default_rng(1).normal(size=40) * 0.01
    counts, value, gap, mean_gap = lists.measure(h)
    score = np.full((len(x), 40), -np.inf, "f4")
    np.put_along_axis(
        score, lists.index.astype(np.int64), lists.inner + h.astype("f4")[lists.index], 1
    )
    winner, order = score.argmax(1), np.sort(score, 1)
    np.testing.assert_array_equal(counts, np.bincount(winner, minlength=40))
    assert value == pytest.approx(order[:, -1].mean(dtype=float), abs=1e-6)
    room = order[:, -1] - order[:, -2]
    seen = room < lists.reach
    assert mean_gap == pytest.approx(np.minimum(room, lists.reach).sum() / seen.sum(), rel=1e-5)
    mine = winner == 7
    local = np.minimum(room, lists.reach)[mine].sum() + 2 * mean_gap
    assert gap[7] == pytest.approx(local / (seen[mine].sum() + 2), rel=1e-5)
    np.testing.assert_allclose(lists.values(h), order[:, -1], rtol=1e-6)


@pytest.mark.parametrize("uneven", [False, True])
def test_complete_lists_are_balanced(uneven):
    """All 16 cells in each list: the empirical problem itself, solved to its tolerance."""
    x, y, h, lists = problem()
    nu = np.random.default_rng(3).uniform(0.1, 1, 16) if uneven else np.ones(16)
    nu /= nu.sum()
    _, _, gap, _ = lists.measure(h)
    for _ in range(3):
        found = lists.newton(h, nu, gap, 0.05, 1e9)
    assert found["residual"] < 0.05
    mass = np.bincount((x @ y.T + h).argmax(1), minlength=16) / len(x)
    assert ((mass - nu) ** 2 / nu).sum() < 0.06 * 15 / len(x)


def test_energy_falls_and_the_room_is_kept():
    *_, h, lists = problem(N=200)
    h = h + np.random.default_rng(0).normal(size=200) * 0.3
    nu = np.full(200, 1 / 200)
    _, value, gap, _ = lists.measure(h)
    before, moved = value - nu @ h, h.copy()
    found = lists.newton(moved, nu, gap, 0.1, 0.25)
    assert found["energy"] < before
    d = (moved - h).astype("f4")
    ratio = np.ptp(d[lists.index], axis=1) / (lists.reach / 2)
    assert np.quantile(ratio, 0.95) < 1.0  # stopped soon after a quarter


def test_threads_change_no_bit():
    found = []
    for threads in (1, 2, 3):
        native.set_num_threads(threads)
        *_, h, lists = problem(M=20_000, N=300)
        _, value, gap, mean_gap = lists.measure(h)
        out = lists.newton(h, np.full(300, 1 / 300), gap, 0.1, 2.0)
        found.append((h.tobytes(), gap.tobytes(), value, mean_gap, out["energy"]))
    native.set_num_threads(0)
    assert found[0] == found[1] == found[2]


def test_a_wrong_index_is_refused():
    *_, h, lists = problem()
    lists.index[5, 3] = 16
    with pytest.raises(ArgumentError, match="outside h"):
        lists.measure(h)

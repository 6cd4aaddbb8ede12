# SPDX-License-Identifier: Apache-2.0
"""method="auto": the descent first, the pools where it stalls; checkpoints inside a stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from problems import clusters

from otcuda.errors import ArgumentError
from otcuda.transport import SemiDiscreteOT, asgd
from otcuda.transport.checkpoint import Checkpoint


def stages(result):
    return {record["stage"] for record in result.history}


@pytest.mark.parametrize(("D", "source"), [(3, "normal"), (16, "uniform"), (64, "normal")])
def test_takes_the_descent_and_nothing_else_where_that_converges(D, source):
    ot, plain = (SemiDiscreteOT(clusters(500, D), source=source) for _ in range(2))
    result = ot.fit(chi2=0.05)
    assert result.converged
    assert stages(result) == {"descent", "validation"}
    assert plain.fit("asgd", chi2=0.05).samples == result.samples
    np.testing.assert_array_equal(ot.heights, plain.heights)
    assert ot.chi2(200_000, seed=9).interval[0] < 0.05


def test_pools_go_on_where_the_descent_stalls(monkeypatch):
    monkeypatch.setattr(asgd, "_STALLED", -1.0)  # no doubling ever helps enough
    monkeypatch.setattr(asgd, "_LOW_EFFICIENCY", 50.0)  # a first round that is too short
    monkeypatch.setattr(asgd, "_FEWEST", 1024)
    y = clusters(500, 3)
    assert SemiDiscreteOT(y).fit("asgd", chi2=0.02).stopped_by == "stalled"
    ot = SemiDiscreteOT(y)
    result = ot.fit(chi2=0.02)
    assert result.converged
    assert "fresh pool" in stages(result)
    assert ot.chi2(200_000, seed=9).interval[0] < 0.02


def test_products_are_taken_where_they_pay_and_lead_to_the_goal():
    assert not asgd.products_pay(1024, 64, True)
    assert not asgd.products_pay(1 << 20, 64, False)
    assert asgd.products_pay(1 << 20, 64, True)
    y = clusters(4500, 64)
    assert asgd.products_pay(*y.shape, True)
    ot = SemiDiscreteOT(y)
    assert ot.fit(chi2=0.5).converged
    assert ot.chi2(40_000, seed=9).value < 0.5


# --- which method, which samples ------------------------------------------------------------------


def efficiency(ot, chi2, **options):
    result = ot.fit(chi2=chi2, **options)
    assert result.converged
    truth = ot.chi2(100 * ot.N, seed=77).value
    assert truth < chi2
    return (ot.N - 1) / (result.samples * truth), result


@pytest.mark.parametrize(
    ("D", "design", "least"),
    [(3, "auto", 1.8), (4, "auto", 1.6), (16, "auto", 1.0), (4, "iid", 0.75), (16, "iid", 0.85)],
)
def test_pools_come_first_and_sobol_points_tell_more(D, design, least):
    """Chi2 by independent samples; independent ones to fit on cannot give more than 1."""
    y = np.random.default_rng(0).normal(size=(700, D)).astype(np.float32)
    found, result = efficiency(SemiDiscreteOT(y), 0.03, design=design)
    assert "fresh pool" in stages(result)
    assert found > least
    if design == "iid":
        assert found < 1.2


def test_weights_over_six_orders_keep_the_efficiency():
    """Seen: 1.2 to 1.5; 0.43 to 0.77 where cells that are due no sample touch their nearest one."""
    logs = np.random.default_rng(1).standard_normal(700)
    nu = np.exp(logs * np.log(1e6) / np.ptp(logs))
    ot = SemiDiscreteOT(clusters(700, 8), nu / nu.sum())
    for seed in range(4):
        assert efficiency(ot, 0.05, seed=seed)[0] > 0.9
    rare = np.asarray(ot.nu) < 1 / ot.result.samples
    assert rare.sum() > 100
    mass = ot.mass(2_000_000, seed=5)
    assert 0.4 < mass[rare].sum() / ot.nu[rare].sum() < 1.3


def test_a_rare_cell_is_put_where_the_samples_that_miss_it_say():
    y = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    nu = np.full(200, 1.0)
    nu[:20] = 2e-3  # due a fifth of a sample each
    ot = SemiDiscreteOT(y, nu / nu.sum())
    ot.fit("pools", chi2=0.012)
    mass = ot.mass(4_000_000, seed=3) / ot.nu
    assert 0.2 < mass[:20].mean() < 2.5  # a cell that touches a sample has about 5
    assert abs(mass[20:] - 1).max() < 0.4


def test_limits_and_sources_of_ones_own_take_the_descent():
    y = clusters(600, 8)
    for options in ({"max_seconds": 0.3}, {"max_samples": 15_000}, {"chi2": 0.5}):
        result = SemiDiscreteOT(y).fit(**options)
        assert "fresh pool" not in stages(result)
        assert "descent" in stages(result)
    ot = SemiDiscreteOT(y, source=lambda n, seed: np.random.default_rng(seed).normal(size=(n, 8)))
    assert "fresh pool" not in stages(ot.fit(chi2=0.2))


def test_estimate_names_the_method_that_auto_will_take():
    ot = SemiDiscreteOT(clusters(600, 8))
    assert ot.estimate(0.02).method == "pools"
    assert ot.estimate(0.5).method == "asgd"
    assert ot.estimate(0.02, method="asgd").bytes < ot.estimate(0.02).bytes


def test_wrong_design_is_named():
    with pytest.raises(ArgumentError, match="design is 'sobol', expected 'auto' or 'iid'"):
        SemiDiscreteOT(clusters(50, 3)).fit(design="sobol")


# --- checkpoints ----------------------------------------------------------------------------------


class CrashError(Exception):
    """In the place of a crash."""


@pytest.mark.parametrize("writes", [1, 4, 9, 20])
def test_gone_on_from_within_a_stage_gives_the_same_bits(writes, tmp_path, monkeypatch):
    path = tmp_path / "fit.safetensors"
    y = clusters(500, 8)
    whole, cut, resumed = (SemiDiscreteOT(y) for _ in range(3))
    expected = whole.fit(chi2=0.05)
    monkeypatch.setattr(Checkpoint, "every", 0.0)  # after each step
    save, numbers = Checkpoint.save, []

    def save_and_stop(self, arrays, record):
        save(self, arrays, record)
        numbers.append(record["step"])
        if len(numbers) == writes:
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(CrashError):
            cut.fit(chi2=0.05, checkpoint=path)
    assert numbers == sorted(set(numbers))  # one a step: most lie within a stage
    assert numbers[0] == 1
    result = resumed.fit(chi2=0.05, checkpoint=path)
    assert (result.chi2, result.samples) == (expected.chi2, expected.samples)
    assert resumed.heights.tobytes() == whole.heights.tobytes()


KILLED = """
import os, signal, sys
sys.path[:0] = [sys.argv[2]]
from problems import clusters
from otcuda.errors import ArgumentError
from otcuda.transport import SemiDiscreteOT, asgd
asgd._STALLED, asgd._LOW_EFFICIENCY, asgd._FEWEST = -1.0, 50.0, 1024
kinds = []
def kill(record):
    kinds.append(record["stage"])
    if sys.argv[3] in kinds and kinds[-1] == "validation":
        os.kill(os.getpid(), signal.SIGKILL)
ot = SemiDiscreteOT(clusters(400, 3))
killing = sys.argv[3] != "never"
result = ot.fit(chi2=0.03, checkpoint=sys.argv[1], callback=kill if killing else None)
print(len(result.history), result.scanned, ot.heights.tobytes().hex())
"""


@pytest.mark.parametrize("stage", ["descent", "pool 1"])
def test_killed_in_either_half_and_resumed_gives_the_same_bits(stage, tmp_path):
    def run(path, killed_in):
        folder = str(Path(__file__).parents[1])
        arguments = [sys.executable, "-c", KILLED, str(tmp_path / path), folder, killed_in]
        return subprocess.run(arguments, capture_output=True, text=True)

    done = run("a", stage)
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "a").exists()
    resumed, whole = run("a", "never"), run("b", "never")
    assert resumed.stdout == whole.stdout != "", resumed.stderr + whole.stderr


LARGE = """
import os, signal, sys
import numpy as np
from otcuda.transport import SemiDiscreteOT
from otcuda.transport.checkpoint import Checkpoint
Checkpoint.every = 0.5
save, count = Checkpoint.save, 0
def counted(self, *what):
    global count
    save(self, *what)
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = counted
y = np.random.default_rng(0).standard_normal((60_000, 64), dtype=np.float32)
seen = []
ot = SemiDiscreteOT(y)
result = ot.fit(chi2=1.5, checkpoint=sys.argv[1], callback=lambda record: seen.append(record))
assert [record["seconds"] for record in seen] == sorted(record["seconds"] for record in seen)
print(result.chi2, result.scanned, ot.heights.tobytes().hex()[:4096], hash(ot.heights.tobytes()))
"""


@pytest.mark.slow
def test_a_large_fit_killed_within_a_stage_goes_on_to_the_same_bits(tmp_path):
    """60,000 targets in 64 dimensions, product samples: what a million runs through."""
    assert asgd.products_pay(60_000, 64, True)

    def run(path, kill_at):
        arguments = [sys.executable, "-c", LARGE, str(tmp_path / path), str(kill_at)]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        return subprocess.run(arguments, capture_output=True, text=True, env=environment)

    assert run("a", 5).returncode == -9
    assert run("a", 4).returncode == -9  # and again
    resumed, whole = run("a", 0), run("b", 0)
    assert resumed.stdout == whole.stdout != "", resumed.stderr + whole.stderr

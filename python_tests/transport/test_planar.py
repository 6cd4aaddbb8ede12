# SPDX-License-Identifier: Apache-2.0
"""The plane without samples: what "auto" makes of it, its limits, its checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from interrupts import InterruptedAfter
from problems import clusters

from otcuda._lists import planar_mass
from otcuda.transport import SemiDiscreteOT, planar
from otcuda.transport.checkpoint import Checkpoint


def stages(result):
    return {record["stage"] for record in result.history}


@pytest.mark.parametrize(
    ("N", "source"), [(2, "uniform"), (3, "normal"), (700, "gaussian_cdf"), (2500, "normal")]
)
def test_auto_needs_no_samples_in_the_plane(N, source):
    ot = SemiDiscreteOT(clusters(N, 2), source=source)
    result = ot.fit()
    assert result.converged
    assert stages(result) == {"planar", "validation"}
    assert result.samples == 0
    assert np.isnan(result.efficiency)
    assert ot.estimate().method == "planar"
    found = ot.chi2(100 * max(N, 1000), seed=3)  # its error is about 1 / 5,000
    assert found.interval[0] == 0
    assert found.value < 2e-3


def test_weights_over_six_orders():
    logs = np.random.default_rng(1).standard_normal(1000)
    nu = np.exp(logs * np.log(1e6) / np.ptp(logs))
    ot = SemiDiscreteOT(clusters(1000, 2), nu / nu.sum())
    assert ot.fit().converged
    assert abs(ot.mass(1_000_000, seed=5) - ot.nu).sum() < 0.03  # of a million samples: 0.02


@pytest.mark.parametrize("source", ["normal", "uniform"])
@pytest.mark.parametrize(
    "y",
    [
        np.random.default_rng(0).normal(size=(300, 1)) * np.array([[1.0, -2.0]]),  # on a line
        np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), -1).reshape(-1, 2),  # ties
        np.random.default_rng(0).standard_t(2, size=(600, 2)) * [100, 1] + 1e3,  # heavy tails
    ],
    ids=["line", "grid", "tails"],
)
def test_hard_places(y, source):
    result = SemiDiscreteOT(y, source=source).fit()
    assert result.converged
    assert result.history[-1]["chi2_interval"][1] <= 0.02
    assert "planar" in stages(result)


def test_what_float32_cannot_hold_is_said():
    """Coordinates of 1e5 and of 1e-3: exact masses are right, those of rounded scores not."""
    y = np.random.default_rng(0).standard_t(2, size=(600, 2)) * [100, 1e-3] + 1e3
    result = SemiDiscreteOT(y, source="uniform").fit()
    exact = [record["exact_chi2"] for record in result.history if record["stage"] == "planar"]
    assert exact[-1] < 1e-6
    assert not result.converged
    assert result.stopped_by == "stalled"


def test_where_no_step_is_left_samples_take_over(monkeypatch):
    stuck = {"chi2": 3.0, "least": 1.0, "step": 1.0, "stuck": True}
    monkeypatch.setattr(planar, "planar_newton", lambda *_, **__: stuck)
    result = SemiDiscreteOT(clusters(200, 2)).fit(chi2=0.1)
    assert result.converged
    assert "planar" not in stages(result)
    assert result.samples > 0


def test_limits_are_kept():
    y = clusters(1500, 2)
    ot = SemiDiscreteOT(y, source="uniform")
    result = ot.fit(max_seconds=1e-3)
    assert result.stopped_by == "seconds"
    assert not result.converged
    result = ot.fit(max_samples=1000)
    assert result.stopped_by == ("chi2" if result.converged else "samples")
    assert result.scanned == 1000
    stopped = ot.fit(callback=lambda record: False)
    assert stopped.stopped_by in ("callback", "chi2")
    assert len([r for r in stopped.history if r["stage"] == "planar"]) == 1


@pytest.mark.parametrize("source", ["normal", "uniform"])
def test_interrupt_stops_at_once_and_leaves_the_best_heights(source, monkeypatch):
    """From the set-up to the last steps: what is left are the heights of the last whole step."""
    monkeypatch.setattr(planar, "_STEPS", 1)
    y, nu = clusters(10_000, 2).astype(float), 1e-4  # a float64 problem shows its own heights

    def exact(h):
        return ((planar_mass(y.astype(np.float32), h, source) - nu) ** 2 / nu).sum()

    left = [exact(planar.roomy_heights(y, source))]
    for seconds in (0.005, 0.15, 0.5):
        ot, told = SemiDiscreteOT(y, source=source), [left[0]]
        ot.heights = np.zeros(len(y))
        with InterruptedAfter(seconds) as ctrl_c, pytest.raises(KeyboardInterrupt):
            ot.fit(callback=lambda record, told=told: told.append(record["exact_chi2"]))
        assert ctrl_c.late < 0.1, seconds
        assert ot.result is None
        if seconds > 0.05:  # else the old heights may be left
            left.append(exact(ot.heights))
            assert left[-1] <= 1.001 * told[-1]  # a step may lie between the report and the signal
    assert left[1] <= left[0] * (1 + 1e-6)
    assert left[2] < 0.999 * left[0]


class CrashError(Exception):
    """In the place of a crash."""


def test_gone_on_from_a_checkpoint_gives_the_same_bits(tmp_path, monkeypatch):
    y, path = clusters(600, 2), tmp_path / "fit"
    whole, cut, resumed = (SemiDiscreteOT(y, source="uniform") for _ in range(3))
    monkeypatch.setattr(planar, "_STEPS", 3)
    expected = whole.fit()
    assert len([r for r in expected.history if r["stage"] == "planar"]) > 2
    save = Checkpoint.save

    def save_and_stop(self, arrays, record):
        save(self, arrays, record)
        if record["state"]["calls"] == 2:
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(CrashError):
            cut.fit(checkpoint=path)
    result = resumed.fit(checkpoint=path)
    assert resumed.heights.tobytes() == whole.heights.tobytes()
    assert (result.chi2, len(result.history)) == (expected.chi2, len(expected.history))


@pytest.mark.parametrize("source", ["normal", "uniform"])
def test_roomy_heights_leave_no_cell_empty(source):
    y = clusters(2000, 2) * np.float32([3.0, 0.01])
    h = planar.roomy_heights(y.astype(float), source)
    assert planar_mass(y, h, source).min() > 0

# SPDX-License-Identifier: Apache-2.0
"""fit: limits, callback, Ctrl-C, what it reports; kinds of arrays; files; wrong arguments."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from interrupts import InterruptedAfter
from problems import clusters

import otcuda
from otcuda.errors import ArgumentError, CorruptDataError, ShapeError
from otcuda.transport import SemiDiscreteOT, fitting

Y = clusters(60, 3)


@pytest.fixture
def large():
    """Half a second of work by the default, minutes when asked for a chi2 of 1e-3."""
    return SemiDiscreteOT(clusters(4000, 16))


def test_sample_limit_is_kept_and_reported():
    ot = SemiDiscreteOT(clusters(500, 8))
    result = ot.fit(max_samples=20_000)
    assert not result.converged
    assert result.stopped_by == "samples"
    assert 15_000 < result.scanned <= 20_500
    assert result.chi2_interval[0] <= result.chi2 <= result.chi2_interval[1]
    assert result.chi2_interval[1] > 0.02
    truth = ot.chi2(400_000, seed=8).value
    assert result.chi2_interval[0] - 0.02 < truth < result.chi2_interval[1] + 0.02
    assert result.efficiency == pytest.approx(499 / (result.samples * result.chi2))


@pytest.mark.parametrize("limit", [1, 100, 1000])
def test_tiny_limits_give_an_honest_answer(limit):
    result = SemiDiscreteOT(Y).fit(max_samples=limit)
    assert result.stopped_by == "samples"
    assert not result.converged
    assert result.scanned <= limit + 20
    assert result.chi2_interval[1] > 0.2


def test_a_source_of_one_place_ends():
    """All samples alike: no heights serve two targets, and no gap gives a unit."""
    for y in (Y[:5], np.array([[0.0] * 3, [1e-30] * 3])):
        result = SemiDiscreteOT(y, source=np.zeros((9, 3))).fit()
        assert not result.converged
        assert result.stopped_by == "stalled"


def test_more_samples_mean_a_smaller_chi2():
    ot = SemiDiscreteOT(clusters(300, 4))
    chi2 = [ot.fit(max_samples=n, chi2=1e-4) and ot.chi2(200_000).value for n in (5000, 80_000)]
    assert chi2[1] < chi2[0] / 4


def test_time_limit_is_kept(large):
    began = time.process_time()
    result = large.fit(chi2=1e-3, max_seconds=0.4)
    assert result.stopped_by == "seconds"
    assert not result.converged
    assert time.process_time() - began < 1.2  # of the processor: a busy machine may be late


def test_time_is_used_to_the_end_of_a_round(monkeypatch):
    """By a clock on which a sample takes 0.1 ms: 10 s are 100,000 samples, the descent fits in."""
    now = 0.0
    solve = otcuda.heights_adam_solve

    def slow_solve(*arguments, iterations, batch, **options):
        nonlocal now
        now += 1e-4 * iterations * batch
        return solve(*arguments, iterations=iterations, batch=batch, **options)

    monkeypatch.setattr(otcuda, "heights_adam_solve", slow_solve)
    monkeypatch.setattr(fitting, "monotonic", lambda: now)
    result = SemiDiscreteOT(clusters(1000, 4)).fit("adam", max_seconds=10)
    assert result.stopped_by == "seconds"
    assert not result.converged
    assert 65_000 < result.samples < 95_000
    assert 10_000 < result.scanned - result.samples < 30_000
    stages = [r for r in result.history if r["stage"] != "validation"]
    assert len(stages) == 24
    assert stages[-1]["step"] == pytest.approx(0.4 * 1000 / result.samples, rel=0.3)
    assert result.chi2 < 0.06


def test_a_source_that_turns_slow_is_interrupted(monkeypatch):
    """The plan was made at 1 ms a batch; from the tenth on one takes a second."""
    now, calls = 0.0, 0

    def sampler(n, seed):
        nonlocal now, calls
        calls += 1
        now += 1e-3 if calls < 10 else 1.0
        return np.random.default_rng(seed).normal(size=(n, 3))

    monkeypatch.setattr(fitting, "monotonic", lambda: now)
    result = SemiDiscreteOT(clusters(2000, 3), source=sampler).fit(chi2=1e-3, max_seconds=10)
    assert result.stopped_by == "seconds"
    assert calls < 30


def test_callback_sees_each_stage_and_may_stop():
    records = []

    def stop_at_three(record):
        records.append(record)
        return len(records) < 3

    result = SemiDiscreteOT(Y).fit(callback=stop_at_three)
    assert result.stopped_by == "callback"
    assert [r["stage"] for r in records] == ["descent"] * 3 + ["validation"]
    assert records[0]["samples"] < records[1]["samples"]
    assert result.history == tuple(records)
    assert {"unit", "samples", "scanned", "seconds"} <= set(records[0])
    assert not result.converged


@pytest.mark.parametrize(
    "source", ["normal", lambda n: np.random.default_rng(0).normal(size=(n, 16))]
)
@pytest.mark.parametrize("method", ["pools", "asgd"])
def test_interrupt_stops_at_once_and_leaves_the_best_heights(large, source, method):
    ot = SemiDiscreteOT(large.y, source=source)
    ot.heights = -((large.y - large.y.mean(0)) ** 2).sum(1) / 2
    before = ot.chi2(20_000).value
    with InterruptedAfter(0.6) as ctrl_c, pytest.raises(KeyboardInterrupt):
        ot.fit(method, chi2=1e-3)
    assert ctrl_c.late < 0.1
    assert ot.chi2(20_000).value < 0.3 * before
    assert ot.result is None


def test_interrupt_is_heard_within_100_ms_wherever_it_comes():
    """From the set-up to the first pools; what is left is the start or better."""
    y = clusters(4000, 16)
    for seconds in (0.005, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6):
        ot = SemiDiscreteOT(y)
        ot.heights = np.zeros(len(y))
        with InterruptedAfter(seconds) as ctrl_c, pytest.raises(KeyboardInterrupt):
            ot.fit(chi2=1e-3)
        assert ctrl_c.late < 0.1, seconds
    assert ot.chi2(20_000).value < 1  # of the last


def test_interrupted_adam_keeps_the_old_heights(large):
    large.heights = np.arange(large.N, dtype=float)
    before = large.heights
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        large.fit("adam")
    np.testing.assert_array_equal(large.heights, before)


def test_history_ends_in_the_result():
    result = SemiDiscreteOT(Y).fit("adam")
    last = result.history[-1]
    assert (last["chi2"], last["chi2_interval"]) == (result.chi2, result.chi2_interval)
    assert last["samples"] == result.samples
    steps = [r["step"] for r in result.history if "step" in r and r["round"] == 1]
    assert steps == sorted(steps, reverse=True)
    assert len(steps) == 24


def test_kind_dtype_and_values_are_those_of_the_argument():
    in_numpy, in_torch = SemiDiscreteOT(Y), SemiDiscreteOT(torch.from_numpy(Y))
    in_numpy.fit()
    in_torch.fit()
    assert isinstance(in_torch.heights, torch.Tensor)
    np.testing.assert_array_equal(in_torch.heights.numpy(), in_numpy.heights)
    x = np.random.default_rng(0).normal(size=(20, 3))
    for dtype in (np.float32, np.float64):
        image = in_torch.transport(x.astype(dtype))
        assert isinstance(image, np.ndarray)
        assert image.dtype == dtype
        other = in_numpy.transport(torch.from_numpy(x.astype(dtype)))
        assert isinstance(other, torch.Tensor)
        np.testing.assert_array_equal(other.numpy(), image)
    assert in_torch.transport(torch.from_numpy(x).half()).dtype == torch.float32
    assert isinstance(in_torch.sample(3), torch.Tensor)
    assert SemiDiscreteOT(Y.astype(np.float64)).y.dtype == np.float64
    assert SemiDiscreteOT(Y.tolist(), [1 / 60] * 60).N == 60
    assert in_numpy.assign(np.zeros((0, 3))).shape == (0,)


def test_numpy_path_never_imports_torch(tmp_path):
    """In a process where torch cannot be imported."""
    script = """
import sys
sys.modules["torch"] = None
import numpy as np
from otcuda.transport import SemiDiscreteOT
y = np.random.default_rng(0).normal(size=(20, 2))
for source in ("normal", lambda n, seed: np.random.default_rng(seed).normal(size=(n, 2))):
    ot = SemiDiscreteOT(y, source=source)
    assert ot.fit(chi2=0.1).converged
x, image, i = ot.pairs(50)
ot.extended_map(x), ot.potential(x), ot.mass(100), ot.chi2(100)
ot.save(sys.argv[1])
assert (SemiDiscreteOT.load(sys.argv[1]).assign(x) == i).all()
"""
    path = tmp_path / "map.safetensors"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    nu = np.full(62, 1 / 61)
    nu[5] = 0
    y = kind(np.concatenate([Y, Y[:2]]))
    ot = SemiDiscreteOT(y, nu, "uniform")
    result = ot.fit(chi2=0.1)
    path = tmp_path / "map.safetensors"
    ot.save(path)
    again = SemiDiscreteOT.load(path)
    assert again.result == result
    assert again.source.name == "uniform"
    assert type(again.y) is type(ot.y)
    x = ot.pairs(2000)[0]
    assert (again.assign(x) == ot.assign(x)).all()
    assert (again.sample(100) == ot.sample(100)).all()
    np.testing.assert_allclose(np.asarray(again.heights), np.asarray(ot.heights), atol=1e-12)
    assert isinstance(SemiDiscreteOT.load(path, device="numpy").y, np.ndarray)
    assert isinstance(SemiDiscreteOT.load(path, device="cpu").y, torch.Tensor)
    assert [each.name for each in tmp_path.iterdir()] == ["map.safetensors"]


def test_a_source_of_ones_own_is_asked_for_again(tmp_path):
    path = tmp_path / "map.safetensors"
    points = np.random.default_rng(0).normal(size=(90, 3))
    ot = SemiDiscreteOT(Y, source=points)
    ot.fit(max_samples=3000)
    ot.save(path)
    again = SemiDiscreteOT.load(path)
    np.testing.assert_array_equal(again.transport(points), ot.transport(points))
    with pytest.raises(ArgumentError, match="pass source="):
        again.sample(3)
    assert SemiDiscreteOT.load(path, source=points).chi2(90).value == ot.chi2(90).value


def test_an_unfitted_problem_can_be_saved(tmp_path):
    SemiDiscreteOT(Y).save(tmp_path / "a")
    again = SemiDiscreteOT.load(tmp_path / "a")
    assert again.result is None
    with pytest.raises(ArgumentError, match="call fit"):
        again.assign(Y)


def test_damaged_files_are_named(tmp_path):
    path, broken = tmp_path / "a", tmp_path / "b"
    ot = SemiDiscreteOT(Y[:3])
    ot.fit(chi2=0.1)
    ot.save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    nan = np.float64("nan").tobytes()
    for damaged in (
        b"",
        data[:4],
        data[:-3],
        data[:20] + b"\xff" + data[21:],
        data.replace(b"otcuda.transport", b"otcuda.transform"),
        data.replace(b'\\"version\\": 1', b'\\"version\\": 9'),
        data[: 8 + size]
        + nan * ((len(data) - 8 - size) // 8)
        + data[len(data) - (len(data) - 8 - size) % 8 :],
    ):
        assert damaged != data
        broken.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match="b"):
            SemiDiscreteOT.load(broken)


WITH_NAN = Y.copy()
WITH_NAN[17, 1] = np.nan


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"y": WITH_NAN}, ArgumentError, "row 17 of 60"),
        ({"y": Y * np.inf}, ArgumentError, "y is not finite"),
        ({"y": Y[0]}, ShapeError, r"y \[N, D\].*got \[3\]"),
        ({"y": Y[:0]}, ShapeError, r"got \[0, 3\]"),
        ({"y": Y[:, :0]}, ShapeError, r"got \[60, 0\]"),
        ({"y": Y + 1j}, ArgumentError, "y is complex"),
        ({"y": [[1.0], [2.0, 3.0]]}, ArgumentError, "y is not an array"),
        ({"y": "abc"}, ArgumentError, "y is <U3"),
        ({"y": Y, "nu": np.ones(59) / 59}, ShapeError, r"nu \[60\]; got nu \[59\]"),
        ({"y": Y, "nu": np.full(60, 1.0)}, ArgumentError, "nu sums to 60, expected 1"),
        ({"y": Y, "nu": np.r_[-0.1, 0.1, np.ones(58) / 58]}, ArgumentError, "negative"),
        ({"y": Y, "nu": np.full(60, np.nan)}, ArgumentError, "not finite"),
        ({"y": Y, "source": "cauchy"}, ArgumentError, "'cauchy'"),
        ({"y": Y, "source": np.zeros((5, 4))}, ShapeError, r"points \[M, 3\]"),
    ],
)
def test_wrong_problems_are_named(arguments, error, says):
    with pytest.raises(error, match=says):
        SemiDiscreteOT(**arguments)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "newton"}, "'newton', expected 'auto'"),
        ({"chi2": 0}, "chi2 is 0"),
        ({"chi2": math.nan}, "chi2 is nan"),
        ({"chi2": None}, "chi2 is None"),
        ({"chi2": "small"}, "chi2 is 'small'"),
        ({"max_samples": -5}, "max_samples is -5"),
        ({"max_seconds": 0.0}, "max_seconds is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"callback": 3}, "callback is int"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(ArgumentError, match=says):
        SemiDiscreteOT(Y).fit(**options)


def test_wrong_samples_and_heights_are_named():
    ot = SemiDiscreteOT(Y)
    for use in (ot.assign, ot.transport, ot.potential, ot.extended_map):
        with pytest.raises(ArgumentError, match="call fit"):
            use(Y)
    with pytest.raises(ArgumentError, match="call fit"):
        _ = ot.heights
    ot.heights = np.zeros(60)
    for x, error in ((Y[:, :2], ShapeError), (Y[0], ShapeError), (WITH_NAN, ArgumentError)):
        for use in (ot.assign, ot.transport, ot.potential, ot.extended_map):
            with pytest.raises(error, match="x "):
                use(x)
    with pytest.raises(ShapeError, match=r"heights has shape \[3\]"):
        ot.heights = np.zeros(3)
    with pytest.raises(ArgumentError, match="heights holds"):
        ot.heights = np.full(60, np.nan)
    for use in (ot.sample, ot.pairs, ot.mass, ot.chi2):
        for n in (0, 2.5, True):
            with pytest.raises(ArgumentError, match="expected an integer from 1"):
                use(n)


def test_a_goal_out_of_reach_ends_as_stalled():
    """A sampler that repeats its samples: what was fitted on them is no better on any others."""
    points = np.random.default_rng(0).normal(size=(500, 3))
    ot = SemiDiscreteOT(Y[:8], source=lambda n: np.resize(points, (n, 3)))
    result = ot.fit("adam", chi2=1e-3)
    assert result.stopped_by == "stalled"
    assert not result.converged

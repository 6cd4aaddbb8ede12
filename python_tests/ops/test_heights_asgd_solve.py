# SPDX-License-Identifier: Apache-2.0
"""heights_asgd_solve: the steps of the contract, whole states, the same bits always."""

from __future__ import annotations

import numpy as np
import pytest

import otcuda
from otcuda._lists import HALVES, AveragedState, heights_asgd_solve
from otcuda._ops import native
from otcuda.errors import ArgumentError

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(30, 4)).astype(np.float32)
NU = RNG.uniform(0.2, 1, 30)
NU /= NU.sum()
RATE, SHARE = 0.3 / np.arange(1, 6), 1 / np.arange(1.0, 6)


def state():
    return AveragedState(np.zeros(30), np.zeros(30))


def solve(state, part=slice(None), **options):
    options = {"batch": 512, "limit": 0.2, "seed": 7} | options
    heights_asgd_solve(Y, NU, "normal", state, rate=RATE[part], share=SHARE[part], **options)
    return state


def plain(product):
    """The contract, step by step."""
    h, mean = np.zeros(30), np.zeros(30)
    for step, (rate, share) in enumerate(zip(RATE, SHARE, strict=True), 1):
        x = np.empty((2 * HALVES if product else 512, 4), np.float32)
        otcuda.source_samples(x, "normal", seed=7, stream=step)
        if product:
            halves = x.reshape(2, HALVES, 4)
            left = np.repeat(halves[:, :, None, :2], HALVES, 2)
            right = np.repeat(halves[:, None, :, 2:], HALVES, 1)
            x = np.ascontiguousarray(np.concatenate([left, right], -1).reshape(-1, 4))
        counts = np.bincount(otcuda.power_argmax(x, Y, h.astype("f4"))[1], minlength=30)
        h = h - np.clip(rate * (counts / 512 - NU) / NU, -0.2, 0.2)
        mean = mean + share * (h - mean)
    return h, mean


@pytest.mark.parametrize("product", [False, True])
def test_steps_are_those_of_the_contract(product, simd_level, threads):
    found = solve(state(), product=product)
    h, mean = plain(product)
    assert found.step == 5
    np.testing.assert_allclose(found.h, h, atol=1e-12)
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)


def test_going_on_gives_the_same_bits():
    whole, cut = solve(state()), solve(solve(state(), slice(0, 2)), slice(2, None))
    assert (whole.h.tobytes(), whole.mean.tobytes()) == (cut.h.tobytes(), cut.mean.tobytes())


def test_a_callback_stops_after_a_whole_step():
    calls = []

    def stop(progress):
        calls.append(progress)
        return False

    many = np.full(100_000, 1e-3)
    stopped = state()
    heights_asgd_solve(
        Y, NU, "normal", stopped, rate=many, share=many, batch=512, limit=1, seed=7, callback=stop
    )
    assert len(calls) == 1
    assert 0 < stopped.step < 100_000
    again = state()
    n = stopped.step
    heights_asgd_solve(
        Y, NU, "normal", again, rate=many[:n], share=many[:n], batch=512, limit=1, seed=7
    )
    assert again.h.tobytes() == stopped.h.tobytes()


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match="multiple of 256"):
        solve(state(), product=True, batch=300)
    with pytest.raises(ArgumentError, match="limit"):
        solve(state(), limit=float("nan"))
    with pytest.raises(ArgumentError, match="source"):
        heights_asgd_solve(
            Y, NU, "cauchy", state(), rate=RATE, share=SHARE, batch=9, limit=1, seed=0
        )
    assert native.num_threads() > 0

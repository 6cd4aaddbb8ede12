# SPDX-License-Identifier: Apache-2.0
"""cell_mass: every backend gives the bits of the contract, whatever the order of threads."""

from __future__ import annotations

import exact
import mass_cases
import numpy as np
import pytest
from emulation.calls import emulated_cell_mass


@pytest.mark.parametrize("processors", [1, 3])
@pytest.mark.parametrize("name", mass_cases.CASES)
def test_bits_of_the_contract(name, processors, emulator):
    index, N, weights = mass_cases.case(name)
    mass, *faults = emulated_cell_mass(emulator, index, N, weights, processors=processors)
    want = exact.cell_mass(index, N, weights)
    assert mass.tobytes() == want.astype(mass.dtype).tobytes()
    assert faults == [-1, -1]


@pytest.mark.parametrize("name", mass_cases.CASES)
def test_cpu_gives_the_same_bits(name):
    otcuda = pytest.importorskip("otcuda")
    index, N, weights = mass_cases.case(name)
    want = exact.cell_mass(index, N, weights)
    assert otcuda.cell_mass(index, N, weights).tobytes() == want.tobytes()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("N", [9, 30_000])
def test_stray_samples_are_left_out_and_reported(N, weighted, emulator):
    index = np.random.default_rng(0).integers(0, N, 1500)
    weights = np.ones(1500, np.float32)
    index[[700, 1200]] = N, -2
    if weighted:
        weights[[401, 800]] = np.nan, -np.inf
    mass, stray, infinite = emulated_cell_mass(emulator, index, N, weights if weighted else None)
    kept = (index >= 0) & (index < N) & np.isfinite(weights)
    assert (mass == np.bincount(index[kept], minlength=N)).all()
    assert (stray, infinite) == (700, 401 if weighted else -1)


@pytest.mark.parametrize("seed", [0, 5])
def test_order_of_threads_changes_no_bit(seed, emulator):
    index, N, weights = mass_cases.case("float32")
    mass, *_ = emulated_cell_mass(emulator, index, N, weights, seed=seed, preempt=7)
    assert mass.tobytes() == exact.cell_mass(index, N, weights).tobytes()

# SPDX-License-Identifier: Apache-2.0
"""Memory: every allocation may fail, limits hold, nothing leaks and the process goes on."""

from __future__ import annotations

import numpy as np
import pytest

import otcuda
from otcuda import doctor
from otcuda._ops import native

MOST = 60  # failures tried an op, spread over its allocations


@pytest.fixture(autouse=True)
def _one_thread():
    native.set_num_threads(1)
    yield
    native.set_num_threads(0)
    native.fail_allocation(0)
    native.set_memory_limit(0)


def digest(test):
    return [array.tobytes() for array in test()]


@pytest.mark.parametrize("name", sorted(doctor.TESTS))
def test_every_allocation_may_fail(name):
    test = doctor.TESTS[name]
    digest(test)  # what is packed once and kept is there now
    before = native.allocation_count()
    expected = digest(test)
    count = native.allocation_count() - before
    held = native.memory_in_use()
    if count == 0:
        pytest.skip(f"{name} takes no memory of the core")
    for k in sorted({1 + i * count // MOST for i in range(MOST)} & set(range(1, count + 1))):
        native.fail_allocation(k)
        with pytest.raises(MemoryError, match="made to fail"):
            digest(test)
        assert native.memory_in_use() == held
    native.fail_allocation(0)
    assert digest(test) == expected


@pytest.mark.parametrize("name", sorted(doctor.TESTS))
def test_a_limit_is_kept(name):
    test = doctor.TESTS[name]
    digest(test)
    native.reset_memory_peak()
    held = native.memory_in_use()
    digest(test)
    peak = native.memory_peak()
    if peak == held:
        pytest.skip(f"{name} takes no memory of the core")
    otcuda.set_memory_limit(peak)
    digest(test)
    otcuda.set_memory_limit(peak - 1)
    with pytest.raises(otcuda.LimitError, match=f"limit {peak - 1}"):
        digest(test)
    assert native.memory_in_use() == held


def test_a_limit_error_is_a_memory_error_with_numbers():
    otcuda.set_memory_limit(1000)
    with pytest.raises(MemoryError, match=r"\d+ bytes.*limit 1000"):
        otcuda.cell_mass(np.zeros(10, np.int64), 100_000, np.ones(10))

# SPDX-License-Identifier: Apache-2.0
"""range64: the kernels write and read the bytes of the CPU, and refuse what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from coding.cases import MESSAGES
from emulation.calls import EmulatedRange
from emulation.range_cases import (
    GAUSS,
    check_borders,
    check_damage,
    check_messages,
    check_strays,
    drawn,
    longest_codes,
    named,
    on_cpu,
    ragged,
)

from otcuda.coding import Tables


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.name)
def test_bytes_of_the_cpu(case, emulator):
    tables = case.tables()
    symbols, index = case.symbols(tables), case.index()
    symbols, index = symbols[:300].astype("i8"), index[:300].astype("i4")
    check_messages(emulator, tables, symbols, index, ragged(len(symbols), 7, len(symbols)))


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8"])
@pytest.mark.parametrize("kind", ["direct", "searched"])
def test_every_search_and_dtype(kind, dtype, emulator):
    T, P, n = {"direct": (1, 12, 200), "searched": (5, 13, 200)}[kind]
    tables = Tables.from_weights(np.random.default_rng(0).integers(1, 900, (T, n)), P, low=3)
    assert bool(EmulatedRange(emulator, tables).shape[7]) == (kind == "direct")
    symbols, index = drawn(1, 400, tables)
    symbols = np.minimum(symbols, 255).astype(dtype)
    index = None if T == 1 else index.astype({"u1": "u1", "i2": "i2"}.get(dtype, "i4"))
    check_messages(emulator, tables, symbols, index, ragged(400, 66))


def test_no_message(emulator):
    empty = np.zeros(0, np.int32)
    check_messages(emulator, GAUSS, empty, empty, np.zeros(0, np.int64))
    check_messages(emulator, GAUSS, empty, empty, np.zeros(3, np.int64))


@pytest.mark.parametrize(("seed", "preempt", "processors"), [(0, 0, 1), (2, 0, 7), (3, 40, 2)])
def test_order_of_threads_changes_no_byte(seed, preempt, processors, emulator):
    symbols, index = drawn(2, 300, GAUSS)
    settings = {"seed": seed, "preempt": preempt, "processors": processors}
    check_messages(emulator, GAUSS, symbols, index, ragged(300, 80), **settings)


def test_the_longest_codes_fit(emulator):
    """81 bits a symbol, in slots of 84: a message too long runs into the next."""
    tables, symbols = longest_codes(64)
    data, _ = on_cpu(symbols, tables, None, np.arange(1, 65))
    assert len(data) == 10 * 64
    check_messages(emulator, tables, symbols, None, np.array([64]))
    check_messages(emulator, tables, symbols, None, np.arange(1, 65))


def test_the_borders_that_mutations_move(emulator):
    check_borders(emulator)


def test_each_kind_of_damage_has_its_name(emulator):
    check_damage(emulator)


def test_what_cannot_be_coded_is_told(emulator):
    check_strays(emulator)


def test_damage_is_met_within_bounds(emulator):
    """Every access is judged; other symbols may come out, for there is no check in a message."""
    symbols, index = drawn(4, 120, GAUSS)
    symbols[::40] = -777
    rng, ends = EmulatedRange(emulator, GAUSS), ragged(120, 9)
    data, byte_ends, _ = rng.encode(symbols, index, ends)
    numbers = np.random.default_rng(0)
    found = 0
    for k in range(0, len(data), 3):
        damaged = data.copy()
        damaged[k] ^= numbers.integers(1, 256)
        back, faults = rng.decode(damaged, byte_ends, 120, index, ends)
        found += named(faults) is not None or (back != symbols).any()
    assert found == len(range(0, len(data), 3))
    for _ in range(20):
        wild = numbers.integers(-(2**63), 2**63, len(ends))
        assert named(rng.decode(data, wild, 120, index, ends)[1]) is not None
        assert named(rng.decode(data, byte_ends, 120, index, wild)[1]) is not None

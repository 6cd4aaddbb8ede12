# SPDX-License-Identifier: Apache-2.0
"""rans32: the kernels write and read the bytes of the CPU, and refuse what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from coding.cases import MESSAGES
from emulation.calls import EmulatedRans
from emulation.rans_cases import (
    CALM,
    GAUSS,
    check_borders,
    check_names_of_damage,
    drawn,
    on_cpu,
    refused,
)

from otcuda.coding import Tables


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.name)
def test_bytes_of_the_cpu(case, emulator):
    tables = case.tables()
    symbols, index = case.symbols(tables), case.index()
    symbols, index = symbols[:300].astype("i8"), index[:300].astype("i4")
    rans = EmulatedRans(emulator, tables)
    directory, blocks = on_cpu(symbols, tables, index, 128)
    data, got, faults = rans.encode(symbols, index, 128)
    assert faults == CALM
    np.testing.assert_array_equal(got, directory)
    assert data.tobytes() == blocks.tobytes()
    back, faults = rans.decode(data, got, len(symbols), index, 128, "i8")
    assert faults == CALM
    np.testing.assert_array_equal(back, symbols)


@pytest.mark.parametrize("P", [1, 8, 9, 12, 13, 16])
def test_round_trip_at_the_borders_of_groups_and_blocks(P, emulator):
    """64 tables of 256 symbols: searched in shared memory; at P <= 8 few slots are looked up."""
    tables = GAUSS
    if P != 12:
        tables = Tables.gaussian([2, 3], -9, 8, P) if P > 4 else Tables([[1]], P, low=-90)
    rans = EmulatedRans(emulator, tables)
    for length in (0, 1, 31, 32, 33, 96, 97, 200):
        symbols, index = drawn(length, length, tables)
        symbols[::17], symbols[5::29] = 2**31 - 1, -(2**31)
        directory, blocks = on_cpu(symbols, tables, index, 96)
        data, got, faults = rans.encode(symbols, index.astype("i8"), 96)
        assert (faults, data.tobytes()) == (CALM, blocks.tobytes())
        np.testing.assert_array_equal(got, directory)
        back, faults = rans.decode(data, got, length, index, 96)
        assert faults == CALM
        np.testing.assert_array_equal(back, symbols)


@pytest.mark.parametrize("kind", ["direct", "shared", "global"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8"])
def test_every_search_and_dtype(kind, dtype, emulator):
    """The whole span of words: long enough for windows to move, several blocks a warp."""
    shape = {"direct": (1, 12, 200), "shared": (5, 13, 200), "global": (50, 14, 600)}[kind]
    T, P, n = shape
    tables = Tables.from_weights(np.random.default_rng(0).integers(1, 900, (T, n)), P, low=3)
    rans = EmulatedRans(emulator, tables)
    assert bool(rans.shape[7]) == (kind == "direct")
    assert (rans.image.nbytes > 200_000) == (kind == "global")
    symbols, index = drawn(1, 1500, tables)
    symbols = np.minimum(symbols, 255).astype(dtype)
    index = None if T == 1 else index.astype({"u1": "u1", "i2": "i2"}.get(dtype, "i4"))
    directory, blocks = on_cpu(symbols, tables, index, 320)
    data, got, faults = rans.encode(symbols, index, 320, processors=1)
    assert (faults, data.tobytes()) == (CALM, blocks.tobytes())
    np.testing.assert_array_equal(got, directory)
    back, faults = rans.decode(data, got, 1500, index, 320, dtype, processors=1)
    assert faults == CALM
    np.testing.assert_array_equal(back, symbols, strict=True)


def test_escapes_of_every_width(emulator):
    """Values of one to seven side bytes, of wide and of narrow alphabets, several in a group."""
    for n in (200, 600):
        tables = Tables.from_weights([1000, *[1] * (n - 2), 500], 10, low=-7)
        offsets = [
            v + d for k in (1, 8, 15, 16, 22, 29, 31) for v in (1 << k, -(1 << k)) for d in (-1, 0)
        ]
        inside = np.clip(np.array([*offsets, 254, 255, 256], np.int64) - 7, -(2**31), 2**31 - 1)
        symbols = np.r_[inside, np.full(40, -7), inside[::-1]].astype(np.int64)
        rans = EmulatedRans(emulator, tables)
        _, blocks = on_cpu(symbols, tables, None, 64)
        data, got, faults = rans.encode(symbols, None, 64)
        assert (faults, data.tobytes()) == (CALM, blocks.tobytes())
        back, faults = rans.decode(data, got, len(symbols), None, 64, "i8")
        assert faults == CALM
        np.testing.assert_array_equal(back, symbols)


@pytest.mark.parametrize(("seed", "preempt", "processors"), [(0, 0, 1), (2, 0, 7), (3, 40, 2)])
def test_order_of_threads_and_teams_change_no_byte(seed, preempt, processors, emulator):
    symbols, index = drawn(2, 700, GAUSS)
    rans = EmulatedRans(emulator, GAUSS)
    _, blocks = on_cpu(symbols, GAUSS, index, 64)
    settings = {"seed": seed, "preempt": preempt, "processors": processors}
    data, directory, _ = rans.encode(symbols, index, 64, **settings)
    assert data.tobytes() == blocks.tobytes()
    back, faults = rans.decode(data, directory, 700, index, 64, **settings)
    assert faults == CALM
    np.testing.assert_array_equal(back, symbols)


def test_each_kind_of_damage_has_its_name(emulator):
    check_names_of_damage(emulator)


def test_the_borders_that_mutations_move(emulator):
    check_borders(emulator)


def test_damage_is_refused_wherever_it_lies(emulator):
    """As the CPU refuses it; every access stays inside (the emulator watches)."""
    symbols, index = drawn(4, 150, GAUSS)
    symbols[::40] = -777
    rans = EmulatedRans(emulator, GAUSS)
    data, directory, _ = rans.encode(symbols, index, 96)
    rng = np.random.default_rng(0)
    for k in range(0, len(data), 5):
        damaged = data.copy()
        damaged[k] ^= rng.integers(1, 256)
        assert refused(rans, damaged, directory, index, 150) is not None
    for _ in range(30):
        other = directory.copy()
        other[rng.integers(2), rng.integers(3)] = rng.integers(2**32, dtype=np.uint32)
        assert refused(rans, data, other, index, 150) is not None
    moved = (index + 1) % 64
    assert refused(rans, data, directory, moved, 150) is not None


def test_what_cannot_be_coded_is_told(emulator):
    tables = Tables.equiprobable(4)
    rans = EmulatedRans(emulator, tables)
    symbols = np.arange(100) % 4
    symbols[[70, 90]] = 4, -1
    assert rans.encode(symbols, None, 64)[2] == [-1, -1, 70]
    rans = EmulatedRans(emulator, GAUSS)
    symbols, index = drawn(5, 100, GAUSS)
    index[[33, 80]] = 64, -1
    assert rans.encode(symbols, index, 64)[2] == [-1, 33, -1]
    symbols, index = np.full(50, 40), np.full(50, 63)
    symbols[44] = 300
    data, directory, _ = rans.encode(symbols, index, 64)
    assert rans.decode(data, directory, 50, index, 64, "u1")[1] == [-1, -1, 44]

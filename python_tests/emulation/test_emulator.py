# SPDX-License-Identifier: Apache-2.0
"""The emulator finds what was planted, names it, and keeps silent about right kernels."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.emulator import HERE, EmulationError, InOut, Output, aligned

PLANTED = {  # bug of planted.cu: what the diagnosis must say
    "missing_barrier": "race on tile|before anyone wrote it",
    "shared_race": "race on count",
    "global_overrun": r"out of bounds: thread 72 reads 4 bytes at planted\.cu:\d+",
    "shared_overrun": "out of bounds: thread 127 writes .* past tile",
    "divergent_barrier": "divergent barrier|before anyone wrote it",
    "missing_wait": "may still be in flight",
    "missing_warp_sync": "race on tile",
    "wrong_mask": "exited",
    "uninitialised": r"reads count\[0\] .* before anyone wrote it",
    "block_race": "race on arg4",
    "slot_reuse": "race on buffer",
    "writes_input": "writes arg1.* which is an input",
    "misaligned": "misaligned: thread .* 16 bytes at planted",
    "never_awaited": "exits while its cp.async at planted.* may still be in flight",
    "endless": "endless: 20001 accesses",
    "third_reader": "race on word",
    "vote_for_sync": "race on tile",
}
BUGS = {name: k for k, name in enumerate(PLANTED, 1)}


def planted(emulator, bug, **settings):
    source = aligned(np.ones(200, np.float32))
    out = Output(aligned(np.zeros(200, np.float32)))
    total = InOut(aligned(np.zeros(1, np.uint32)))
    emulator.call("planted", bug, source, out, 200, total, most_accesses=20_000, **settings)
    return out.array, total.array


@pytest.mark.parametrize("seed", range(5))
def test_the_right_kernel_passes(seed, emulator):
    out, total = planted(emulator, 0, seed=seed, preempt=3 * seed)
    assert total[0] == 200
    assert set(out[:128]) == {8.0}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bug_is_found(bug, seed, emulator):
    with pytest.raises(EmulationError, match=PLANTED[bug]):
        planted(emulator, BUGS[bug], seed=seed)


def test_an_output_left_unwritten_is_found(emulator):
    out = Output(aligned(np.zeros(201, np.float32)))
    total = InOut(aligned(np.zeros(1, np.uint32)))
    with pytest.raises(EmulationError, match="4 bytes of output arg2 were never written"):
        emulator.call("planted", 0, aligned(np.ones(200, np.float32)), out, 200, total)


def test_traffic_counts_conflicts_and_sectors(emulator):
    """tile[t] is free of conflicts; buffer[4 (t ^ 1)] knows 8 banks only: four wavefronts."""
    source = aligned(np.ones(256, np.float32))
    out = Output(aligned(np.zeros(256, np.float32)))
    total = InOut(aligned(np.zeros(1, np.uint32)))
    emulator.call("planted", 0, source, out, 256, total, traffic=True)
    lines = emulator.take_traffic()
    text = (HERE / "planted.cu").read_text().splitlines()

    def ratios(code, memory):
        numbers = [k for k, line in enumerate(text, 1) if code in line]
        place = f"planted.cu:{numbers[0]}"
        return {t.ratio for t in lines if (t.place, t.memory) == (place, memory)}

    assert ratios("tile[t] = v;", "shared") == {1.0}
    assert ratios("v += buffer[0][4 * (t ^ 1)];", "shared") == {4.0}
    assert ratios("if (i < n) out[i] = v;", "global") == {1.0}

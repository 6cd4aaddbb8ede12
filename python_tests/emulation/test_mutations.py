# SPDX-License-Identifier: Apache-2.0
"""Every barrier, wait, bound, atomic and tie rule of csrc/cuda is needed."""

from __future__ import annotations

import pytest
from emulation import mutations

MUTANTS = mutations.mutants()
SAMPLE = {  # words of one mutant each, for every day
    "cp_async_wait<kStages - 2>(); ->",
    "atomicMax(&keys[row], key)",
    "k < left",
    "counts[i] = 0;",
    "taken >= limit",
    "&& end <= total;",
}


def chosen():
    """Mutants of SAMPLE run always, the rest when slow tests do."""
    left = set(SAMPLE)
    for mutant in MUTANTS:
        hit = next((words for words in left if words in mutant.name), None)
        left.discard(hit)
        marks = () if hit else (pytest.mark.slow,)
        yield pytest.param(mutant, id=mutant.name, marks=marks)


@pytest.mark.parametrize("op", mutations.CHECKS)
def test_the_kernels_as_they_are_pass(op, emulator):
    mutations.CHECKS[op](emulator)


@pytest.mark.parametrize("mutant", list(chosen()))
def test_mutant_is_caught(mutant, emulator, emulation_cache, tmp_path, record_property):
    caught = mutations.verdict(mutant, emulation_cache, tmp_path)
    assert caught, f"{mutant.name} survived"
    record_property("caught", caught)

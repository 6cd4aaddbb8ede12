# SPDX-License-Identifier: Apache-2.0
"""method="auto": the descent of "asgd" as long as it helps, then the pools.

A step of the descent takes nothing but winners, so a sample costs a third of what it costs in a
pool; a pool learns more from each. Down to most goals the descent is there first, and where longer
rounds stop helping the pools go on from its heights. docs/transport.md, section 6.
"""

from __future__ import annotations

import numpy as np

from otcuda.transport.asgd import Rounds
from otcuda.transport.cells import Cells
from otcuda.transport.estimates import estimate, free_memory
from otcuda.transport.fitting import FitResult, Run
from otcuda.transport.pools import Pooler, takes_products
from otcuda.transport.sources import NAMED, key


def fit_auto(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    """Heights float64 [n] and how it ended."""
    named = cells.source.name in NAMED
    rounds = Rounds(cells, run, seed)
    pooler: Pooler | None = None
    found = run.checkpoint.load() if run.checkpoint is not None else None
    if found is not None and found[1]["stage"] != "asgd":
        pooler = Pooler(cells, run, key(seed, 8), takes_products(cells.n, cells.D, named))
        pooler.restore(*found)
    else:
        if found is not None:
            rounds.restore(*found)
        rounds.solve()
        if run.stopped_by != "stalled" or not _memory_for_pools(cells, run, named):
            return rounds.best[1], run.result(rounds.best[0], cells.n)
        run.stopped_by = None
        pooler = Pooler(cells, run, key(seed, 8), takes_products(cells.n, cells.D, named))
        pooler.best, pooler.given = rounds.best, rounds.best[1]
    return pooler.solve()


def _memory_for_pools(cells: Cells, run: Run, named: bool) -> bool:
    goal = run.goal
    needed = estimate(cells.n, cells.D, goal.chi2, named, goal.max_samples, "pools")
    return needed.bytes <= free_memory()

# SPDX-License-Identifier: Apache-2.0
"""method="auto": the pools where cells get more than a few samples, else the descent of "asgd".

A pool learns the most from a sample, and needs memory for lists; a step of the descent takes
nothing but winners, and stops at a time limit whenever it comes. Where longer rounds of a descent
stop helping, the pools go on from its heights. In the plane cells are polygons, and no samples are
needed; more of them than that is made for move together over far more than a list sees, and Adam's
momentum is what carries them. docs/transport.md, section 4.
"""

from __future__ import annotations

import numpy as np

from otcuda.transport.adam import fit_adam
from otcuda.transport.asgd import Rounds
from otcuda.transport.cells import Cells
from otcuda.transport.estimates import free_memory, pools_fit
from otcuda.transport.fitting import FitResult, Run
from otcuda.transport.planar import fit_planar, takes_planar
from otcuda.transport.pools import PLANAR, PLANAR_SIZE, Pooler, go_first
from otcuda.transport.sources import NAMED, key


def fit_auto(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    """Heights float64 [n] and how it ended."""
    named = cells.source.name in NAMED
    found = run.checkpoint.load() if run.checkpoint is not None else None
    stage = "" if found is None else found[1]["stage"]
    if stage in ("", "planar") and takes_planar(cells.n, cells.D, named):
        exact = fit_planar(cells, run, seed)
        if exact is not None:
            return exact
    memory = pools_fit(cells.n, cells.D, named, run.goal, free_memory())
    first = memory and go_first(cells.n, cells.D, named, run.goal)
    if stage not in ("", "asgd") or (first and stage != "asgd"):
        pooler = Pooler(cells, run, key(seed, 8))
        if found is not None:
            pooler.restore(*found)
        return pooler.solve()
    if named and cells.D <= PLANAR and cells.n > PLANAR_SIZE and run.checkpoint is None:
        return fit_adam(cells, run, seed)
    rounds = Rounds(cells, run, seed)
    if found is not None:
        rounds.restore(*found)
    rounds.solve()
    if run.stopped_by != "stalled" or not memory:
        return rounds.best[1], run.result(rounds.best[0], cells.n)
    run.stopped_by = None
    pooler = Pooler(cells, run, key(seed, 8))
    pooler.best, pooler.given = rounds.best, rounds.best[1]
    return pooler.solve()

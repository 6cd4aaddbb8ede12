# SPDX-License-Identifier: Apache-2.0
"""Two dimensions without samples: the cells are polygons, and their masses are known exactly.

Damped Newton from heights under which no cell is empty, csrc/common/planar_newton.h. Samples only
measure what was reached, as they do for every method. docs/transport.md, section 4.
"""

from __future__ import annotations

import numpy as np

from otcuda._lists import planar_newton
from otcuda.transport.arrays import to_numpy
from otcuda.transport.asgd import NUMPY
from otcuda.transport.cells import VALIDATION, Cells
from otcuda.transport.estimators import samples_to_certify
from otcuda.transport.fitting import FitResult, Run

LARGEST = 1 << 17  # targets; no more was tried
_TOLERANCE = 1e-6  # chi2 of the exact masses, or a hundredth of the goal
_STEPS, _CALLS = 8, 64  # of a native call; calls at most
_NORMAL_RADIUS = 4.0  # of the targets once they lie over the normal law
_MARGIN = 0.02  # of the square around them
_BYTES, _BYTES_LEVEL = 460, 48  # a target: polygons, tree, and the factor, a doubling; measured


def takes_planar(n: int, D: int, named: bool) -> bool:
    """Whether the cells are polygons under a law whose mass of them is known."""
    return named and D == 2 and 2 <= n <= LARGEST


def planar_bytes(n: int) -> int:
    """Memory at the peak, beside three copies of the targets."""
    return int((_BYTES + _BYTES_LEVEL * np.log2(n)) * n)


def roomy_heights(y: np.ndarray, source: str) -> np.ndarray:
    """Heights under which target i is the nearest of all at A (y_i - b): no cell is empty.

    A is diagonal and lays the targets over the source; y [N, 2] float64.
    """
    low, high = y.min(0), y.max(0)
    if source == "normal":
        middle, centre = y.mean(0), 0.0
        spread = np.maximum(y.std(0), 1e-3 * y.std(0).max())
        scale = 1 / spread
        scale *= _NORMAL_RADIUS / np.sqrt((((y - middle) * scale) ** 2).sum(1).max())
    else:
        middle, centre = (low + high) / 2, 0.5
        scale = (1 - 2 * _MARGIN) / np.maximum(high - low, 1e-3 * (high - low).max())
    place = scale * (y - middle) + centre
    return -(place**2 / (2 * scale)).sum(1)


def fit_planar(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult] | None:
    """Heights float64 [n] and how it ended; None where no step is left far from the goal."""
    y = to_numpy(cells.targets(NUMPY))
    found = run.checkpoint.load() if run.checkpoint is not None else None
    if found is None:
        h, state = roomy_heights(y.astype(np.float64), cells.source.name), {}
    else:
        h, state = found[0]["h"], found[1]["state"]
        run.go_on_from(found[1]["run"])
    tolerance = min(_TOLERANCE, run.goal.chi2 / 100)
    run.keep(h)  # changed in place, by whole steps
    while not run.late() and not state.get("done") and state.get("calls", 0) < _CALLS:
        report = planar_newton(
            y, cells.weights, h, cells.source.name, state, tolerance=tolerance, iterations=_STEPS,
            callback=lambda _: not run.late(),
        )  # fmt: skip
        if report is None:  # a limit
            break
        if report["stuck"] and report["chi2"] > 0.1 * run.goal.chi2:
            return None
        again = {name: report[name] for name in ("least", "step")}
        done = report["stuck"] or report["chi2"] <= tolerance
        state = {**again, "calls": state.get("calls", 0) + 1, "done": bool(done)}
        shown = {name: report[name] for name in ("iterations", "diagrams", "entries")}
        run.report(stage="planar", exact_chi2=report["chi2"], **shown)
        if run.checkpoint is not None and not run.stopped_by:
            run.checkpoint.save({"h": h}, {"stage": "planar", "state": state, "run": run.state()})
    return h, _measured(cells, h, run, seed)


def _measured(cells: Cells, h: np.ndarray, run: Run, seed: int) -> FitResult:
    """Chi2 on samples, which the heights have not seen, as they have seen none."""
    check = samples_to_certify(cells.n, run.goal.chi2)
    M = int(max(2, min(check, run.samples_left())))
    # A time limit leaves a tenth of itself to say how good the heights are.
    late = -0.1 * (run.goal.max_seconds or 0.0)
    chi2 = cells.chi2(h, M, seed, VALIDATION, lambda: run.seconds_left() <= late)
    run.scanned += chi2.samples
    run.report(stage="validation", chi2=chi2.value, chi2_interval=chi2.interval)
    if chi2.interval[1] <= run.goal.chi2:
        run.stopped_by = "chi2"
    else:  # stalled: float32, in which samples are scanned, is too coarse for these targets
        run.stopped_by = run.stopped_by or ("samples" if check > M else "stalled")
    return run.result(chi2, cells.n)

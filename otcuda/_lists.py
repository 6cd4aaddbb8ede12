# SPDX-License-Identifier: Apache-2.0
"""The native loops of the solver: lists of the best cells, Newton on them, averaged SGD.

NumPy arrays on the CPU, checked by the core; contracts in csrc/common. Not public.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda._ops import native, respect_torch_threads
from otcuda.errors import Interrupted

HALVES = 16  # of a side of a product group, which holds HALVES^2 samples
SOBOL_DIMENSIONS = native.SOBOL_DIMENSIONS


def top_cells(
    x: np.ndarray, y: np.ndarray, h: np.ndarray, out: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """The K best cells of each sample: csrc/common/top_cells.h.

    Args:
        x: samples [B, D], or halves of product samples [G, 16, D], which are 256 G samples.
        y: targets, [N, D].
        h: heights, [N], float32.
        out: index [B, K] int32, inner [B, K], cut [B], written.
    """
    respect_torch_threads()
    if x.ndim == 3:
        native.top_cells_product(x, y, h, x.shape[2] // 2, *out)
    else:
        native.top_cells(x, y, h, *out)


class TargetIndex:
    """Targets whose lists are made at ever new heights: csrc/cpu/top_cells_index.h.

    Small integers stand for the targets where that pays; the results are those of `top_cells`.

    Attributes:
        y: targets, float32 [N, D], which must not change.
    """

    def __init__(self, y: np.ndarray):
        self.y = y
        self._native = native.TopCellsIndex(y)

    def set_heights(self, h: np.ndarray) -> None:
        """Heights of the lists to come, float32 [N]."""
        self._native.set_heights(h)

    def lists(
        self,
        x: np.ndarray,
        out: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        start: bool = False,
        forced: bool = False,
    ) -> None:
        """The K best cells of each sample of x [B, D], as `top_cells`.

        Args:
            x: samples, float32 [B, D].
            out: index [B, K] int32, inner [B, K], cut [B], written.
            start: whether index and inner hold lists of these samples at other heights, which tell
                about where the new ones end.
            forced: by the integers even where they do not seem to pay.
        """
        respect_torch_threads()
        self._native.lists(x, *out, start, forced)

    def winners(self, x: np.ndarray, *, forced: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The best cell of each sample of x [B, D] and its inner product."""
        respect_torch_threads()
        index, inner = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
        self._native.winners(x, index, inner, forced)
        return index, inner


def sobol_samples(
    out: np.ndarray, source: str, *, seed: int, stream: int = 0, offset: int = 0
) -> np.ndarray:
    """Samples on scrambled Sobol points, float32 [B, D]: csrc/common/sobol_samples.h.

    Args:
        out: written, and returned; at most `SOBOL_DIMENSIONS` columns.
        source: a named source.
        seed: with `stream` which scramble.
        stream: see `seed`.
        offset: first point; offset + B <= 2^32.
    """
    respect_torch_threads()
    native.sobol_samples(out, source, seed, stream, offset)
    return out


@dataclass
class Lists:
    """Lists of M samples: index [M, K] int32, inner products [M, K], reach [M] float32."""

    index: np.ndarray
    inner: np.ndarray
    reach: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def part(self, rows: slice) -> Lists:
        """The lists of some samples, a view."""
        return Lists(self.index[rows], self.inner[rows], self.reach[rows])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the native loops take."""
        return self.index, self.inner, self.reach

    def values(self, h: np.ndarray) -> np.ndarray:
        """Value of the best cell of each list at heights h, float32 [M]."""
        h = h.astype(np.float32)
        rows = max(1, (1 << 22) // self.index.shape[1])
        best = [
            (self.inner[at : at + rows] + h[self.index[at : at + rows]]).max(1)
            for at in range(0, len(self), rows)
        ]
        return np.concatenate(best)

    def measure(self, h: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, float]:
        """Counts [N], mean best value, local gaps [N] and mean gap at heights h."""
        respect_torch_threads()
        counts, gap = np.empty(len(h), np.int64), np.empty(len(h))
        value, mean_gap = native.list_measure(*self.arrays(), h, counts, gap)
        return counts, value, gap, mean_gap

    def newton(
        self, h: np.ndarray, nu: np.ndarray, gap: np.ndarray, tolerance: float, room: float
    ) -> dict[str, Any]:
        """Balances the cells on the lists: h [N] is changed. csrc/common/list_newton.h."""
        respect_torch_threads()
        settings = {"tolerance": tolerance, "room": room, "iterations": 8}
        return native.list_newton(*self.arrays(), nu, gap, h, **settings)


def planar_mass(y: np.ndarray, h: np.ndarray, source: str) -> np.ndarray:
    """Exact masses [N] of the cells of y [N, 2] float32: csrc/common/planar_newton.h."""
    respect_torch_threads()
    mass = np.empty(len(h))
    native.planar_mass(y, h, source, mass)
    return mass


def planar_newton(
    y: np.ndarray,
    nu: np.ndarray,
    h: np.ndarray,
    source: str,
    state: dict[str, Any],
    *,
    tolerance: float,
    iterations: int,
    callback: Callable[[float], Any] | None = None,
) -> dict[str, Any] | None:
    """Balances the cells of y [N, 2] exactly: csrc/common/planar_newton.h.

    Args:
        y: targets, float32 [N, 2].
        nu: weights, float64 [N].
        h: heights, float64 [N], moved in place by whole steps.
        source: a named source.
        state: `least` and `step` of a call that this one goes on from, if there was one.
        tolerance: chi2 of the exact masses to stop at.
        iterations: steps at most.
        callback: called with the progress; returning False stops.

    Returns:
        chi2, least, step, iterations, diagrams, entries, stuck; None if the callback stopped
        it.
    """
    respect_torch_threads()
    going_on = {name: state[name] for name in ("least", "step") if name in state}
    settings = {"tolerance": tolerance, "iterations": iterations, "callback": callback}
    try:
        return native.planar_newton(y, nu, h, source=source, **settings, **going_on)
    except Interrupted:
        return None


@dataclass
class AveragedState:
    """Heights of the last step and their mean, float64 [N], and the number of steps."""

    h: np.ndarray
    mean: np.ndarray
    step: int = 0


def heights_asgd_solve(
    y: np.ndarray,
    nu: np.ndarray,
    source: str,
    state: AveragedState,
    *,
    rate: np.ndarray,
    share: np.ndarray,
    batch: int,
    limit: float = 1e30,
    seed: int = 0,
    product: bool = False,
    callback: Callable[[float], Any] | None = None,
) -> None:
    """Averaged SGD from `state`, which is changed: csrc/common/heights_asgd_solve.h.

    Args:
        y: targets, float32 [N, D].
        nu: weights, float64 [N].
        source: a named source.
        state: where to go on.
        rate: of each step, float64; a hit lowers a height by rate / (batch nu).
        share: of the newest heights in the mean, each step, float64.
        batch: samples of a step.
        limit: largest change of a height in a step.
        seed: of the samples; step s draws stream s.
        product: whether samples are products of halves.
        callback: called with the progress; returning False stops after a whole step.
    """
    respect_torch_threads()
    step = np.array([state.step], np.int64)
    try:
        native.heights_asgd_solve(
            y, nu, state.h, state.mean, step, rate, share,
            source=source, seed=seed, batch=batch, limit=limit, product=product, callback=callback,
        )  # fmt: skip
    except Interrupted:
        pass
    finally:
        state.step = int(step[0])

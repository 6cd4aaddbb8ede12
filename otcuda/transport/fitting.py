# SPDX-License-Identifier: Apache-2.0
"""What every solver shares: the goal, the result, the clock, and the report on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from otcuda.errors import ArgumentError
from otcuda.transport.checkpoint import Checkpoint
from otcuda.transport.estimators import Chi2

DESIGNS = ("auto", "iid")


@dataclass(frozen=True)
class Goal:
    """When a solver may stop.

    Attributes:
        chi2: upper end of the 95 % interval of chi2 on fresh samples that is good enough, positive.
        max_samples: samples that may be drawn, validation included; None for no limit.
        max_seconds: wall time; None for no limit.
        design: how samples are drawn, "auto" or "iid": independent of each other.
    """

    chi2: float = 0.02
    max_samples: int | None = None
    max_seconds: float | None = None
    design: str = "auto"

    def __post_init__(self) -> None:
        for name in ("chi2", "max_samples", "max_seconds"):
            limit = getattr(self, name)
            if limit is None and name != "chi2":
                continue
            if not isinstance(limit, (int, float)) or not limit > 0:
                raise ArgumentError(f"fit: {name} is {limit!r}, expected a number above 0")
        if self.design not in DESIGNS:
            raise ArgumentError(f"fit: design is {self.design!r}, expected 'auto' or 'iid'")


@dataclass(frozen=True)
class FitResult:
    """How a fit ended. A goal that was not met is no error: `converged` says so.

    Attributes:
        chi2: unbiased estimate on samples that no heights had seen; may be a little below 0 near
            the solution.
        chi2_interval: 95 % interval of the truth.
        converged: the upper end of the interval is within the goal.
        stopped_by: "chi2" (the goal), "closed_form", "samples", "seconds", "callback", or "stalled"
            where longer rounds stopped helping (a finite source may allow no better).
        samples: samples that the heights were fitted on.
        scanned: samples scanned in all, validation and measurements of the unit included.
        seconds: wall time.
        efficiency: (N-1) / (samples chi2): 1 is what averaging independent samples can reach; nan
            where chi2 <= 0.
        history: one record a stage: stage, samples, scanned, seconds and what the method has to
            say (unit, rescans, ...); after a measurement chi2 and its interval.
    """

    chi2: float
    chi2_interval: tuple[float, float]
    converged: bool
    stopped_by: str
    samples: int
    scanned: int
    seconds: float
    efficiency: float
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, text and lists, for JSON."""
        return asdict(self)


class Late(Exception):  # noqa: N818
    """A limit was reached inside a stage, which is given up."""


class Run:
    """Clock, counters and history of one fit."""

    def __init__(
        self,
        goal: Goal,
        callback: Callable[[dict[str, Any]], Any] | None,
        checkpoint: Checkpoint | None = None,
    ):
        self.goal, self.checkpoint = goal, checkpoint
        self.history: list[dict[str, Any]] = []
        self.samples = self.scanned = 0
        self.stopped_by: str | None = None
        self.reserved = 0.0  # samples that stages must leave to the validation
        self.best: Any = None  # heights worth keeping if the fit is interrupted
        self._callback = callback
        self._start = monotonic()

    def state(self) -> dict[str, Any]:
        """Counters, time and history, for a checkpoint."""
        return {
            "samples": self.samples,
            "scanned": self.scanned,
            "seconds": self.seconds(),
            "history": self.history,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.samples, self.scanned = state["samples"], state["scanned"]
        self._start = monotonic() - state["seconds"]
        for record in state["history"]:
            interval = {k: tuple(v) for k, v in record.items() if k == "chi2_interval"}
            self.history.append({**record, **interval})

    def keep(self, h: Any) -> None:
        """Remembers heights that an interrupted fit should leave behind."""
        self.best = h

    def seconds(self) -> float:
        """Wall time since the fit began."""
        return monotonic() - self._start

    def seconds_left(self) -> float:
        """Wall time until the limit; infinite without one."""
        limit = self.goal.max_seconds
        return math.inf if limit is None else limit - self.seconds()

    def samples_left(self) -> float:
        """Samples until the limit; infinite without one."""
        limit = self.goal.max_samples
        return math.inf if limit is None else limit - self.scanned

    def scarcer(self) -> str:
        """The limit that ends a fit which could not afford another round."""
        of_seconds = self.seconds_left() / (self.goal.max_seconds or math.inf)
        of_samples = self.samples_left() / (self.goal.max_samples or math.inf)
        # inf / inf: no such limit, and a comparison with nan is false.
        return "seconds" if of_seconds < of_samples or math.isnan(of_samples) else "samples"

    def late(self) -> bool:
        """Whether the time is up, or a callback has asked to stop."""
        if self.stopped_by is None and self.seconds_left() <= 0:
            self.stopped_by = "seconds"
        return self.stopped_by is not None

    def tick(self) -> None:
        """Called between blocks of a long stage.

        Raises:
            Late: the time is up, or a callback has asked to stop.
        """
        if self.late():
            raise Late

    def afford(self, samples: float) -> None:
        """Called before a stage that scans so many samples.

        Raises:
            Late: the limit does not allow them.
        """
        if samples > self.samples_left() - self.reserved:
            self.stopped_by = self.stopped_by or "samples"
        self.tick()

    def report(self, **record: Any) -> None:
        """Keeps the record and shows it to the callback; False from there ends the fit."""
        counts = {"samples": self.samples, "scanned": self.scanned, "seconds": self.seconds()}
        record = {**record, **counts}
        self.history.append(record)
        if self._callback is not None and self._callback(dict(record)) is False:
            self.stopped_by = self.stopped_by or "callback"

    def result(self, chi2: Chi2, n: int) -> FitResult:
        """Result with the last measurement."""
        converged = chi2.interval[1] <= self.goal.chi2
        fitted = self.samples * chi2.value
        return FitResult(
            chi2=chi2.value,
            chi2_interval=chi2.interval,
            converged=converged,
            stopped_by=self.stopped_by or ("chi2" if converged else "samples"),
            samples=self.samples,
            scanned=self.scanned,
            seconds=self.seconds(),
            efficiency=(n - 1) / fitted if fitted > 0 else math.nan,
            history=tuple(self.history),
        )

# SPDX-License-Identifier: Apache-2.0
"""The loop that every training stage shares: steps, log, checkpoints, validation, resume.

Whatever is random in a step is a function of (seed, step), so that a run that was killed and
resumed gives the weights of an unbroken one on the same number of threads.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from otcuda.training.checkpoint import newest_checkpoint, save_checkpoint

Callback = Callable[[dict[str, Any]], None]


class Stage(Protocol):
    """What the loop asks of a stage."""

    name: str
    steps: int

    def advance(self, step: int) -> dict[str, float]:
        """Do one step; the numbers are averaged into the log."""

    def validate(self) -> dict[str, float]:
        """Numbers on held-out pictures; `score` (larger is better) chooses the best weights."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resumed run needs."""

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Inverse of `state`."""

    def sample(self, path: Path) -> None:
        """Write a picture that shows how far the stage has come."""


@dataclass(frozen=True)
class LoopConfig:
    """How often the loop writes.

    Attributes:
        log_every: steps between lines of the log.
        save_every: steps between checkpoints; at most so many steps are lost by a kill.
        validate_every: steps between validations.
        max_seconds: stop (with a checkpoint) after so long; None for no limit.
    """

    log_every: int = 20
    save_every: int = 100
    validate_every: int = 500
    max_seconds: float | None = None


def run_stage(
    stage: Stage, folder: Path, config: LoopConfig, callback: Callback = lambda _: None
) -> bool:
    """Run a stage from its newest checkpoint to its last step.

    Args:
        stage: the stage.
        folder: run folder; gets `<stage>/step-*.safetensors`, `<stage>/best.safetensors`,
            `<stage>.png` and `log.jsonl`.
        config: how often to write.
        callback: takes each line of the log, and lines of talk as `{"say": ...}`.

    Returns:
        True when the last step is done, False when time ran out or a signal came.
    """
    home = folder / stage.name
    found = newest_checkpoint(home, lambda text: callback({"say": text}))
    step, best = 0, float("-inf")
    if found is not None:
        tensors, state = found
        step, best = state["step"], state["best"]
        stage.load(tensors, state)
        callback({"say": f"{stage.name}: going on from step {step}"})
        if state.get("judged", _judged(stage)) != _judged(stage):
            best = float("-inf")  # scores of other steps say nothing about these
            callback({"say": f"{stage.name}: it is judged elsewhere now, the best begins anew"})
    with _StopFlag() as stop, (folder / "log.jsonl").open("a") as log:
        writer = _Writer(stage, home, log, callback, best)
        start = time.monotonic()
        saved = step
        while step < stage.steps and not stop.raised:
            writer.add(stage.advance(step))
            step += 1
            last = step == stage.steps
            if step % config.log_every == 0 or last:
                writer.line(step)
            if step % config.validate_every == 0 or last:
                writer.validation(step, folder / f"{stage.name}.png")
            if step % config.save_every == 0 or last:
                writer.checkpoint(step)
                saved = step
            if config.max_seconds is not None and time.monotonic() - start > config.max_seconds:
                break
        if saved != step:
            writer.checkpoint(step)
    return step >= stage.steps


def _judged(stage: Stage) -> str:
    """At which steps of the quantiser a stage is scored, where it says so."""
    return str(getattr(getattr(stage, "config", None), "judged_at", ""))


class _Writer:
    """Averages, the log file, checkpoints and the best weights of one stage."""

    def __init__(self, stage: Stage, home: Path, log, callback: Callback, best: float) -> None:
        self._stage, self._home, self._log, self._callback = stage, home, log, callback
        self._sums: dict[str, float] = {}
        self._count = 0
        self._cpu = time.process_time()
        self.best = best

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def line(self, step: int) -> None:
        means = {name: total / self._count for name, total in self._sums.items()}
        self._write({"step": step, **means, "cpu_seconds": time.process_time() - self._cpu})
        self._sums, self._count = {}, 0

    def validation(self, step: int, picture: Path) -> None:
        metrics = self._stage.validate()
        if metrics["score"] > self.best:
            self.best = metrics["score"]
            tensors, state = self._stage.state()
            state |= {"best": self.best, "judged": _judged(self._stage)}
            best = save_checkpoint(self._home / "best", step, tensors, state)
            best.replace(self._home / "best.safetensors")
        self._write({"step": step, "validation": metrics})
        self._stage.sample(picture)

    def checkpoint(self, step: int) -> None:
        tensors, state = self._stage.state()
        state |= {"best": self.best, "judged": _judged(self._stage)}
        save_checkpoint(self._home, step, tensors, state)

    def _write(self, record: dict[str, Any]) -> None:
        record = {
            "stage": self._stage.name,
            "steps": self._stage.steps,
            "time": time.time(),
            **record,
        }
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
        self._callback(record)


class _StopFlag:
    """SIGTERM and Ctrl-C end the loop after the running step, with a checkpoint."""

    def __init__(self) -> None:
        self.raised = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._raise)
        return self

    def _raise(self, *_: object) -> None:
        self.raised = True

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

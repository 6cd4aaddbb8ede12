# SPDX-License-Identifier: Apache-2.0
"""From a file of targets to a file of heights: what `otcuda solve` does."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, CorruptDataError
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import NAMED

_EVERY = 10.0  # seconds between two words on a long fit


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a .npy file; nothing in it is executed.

    Raises:
        CorruptDataError: not such a file, or one of Python objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptDataError(f"{path} is not a .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise CorruptDataError(f"{path} is an archive of arrays; one .npy file is wanted")
    return array


def solve_file(
    targets: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    nu: str | os.PathLike[str] | None = None,
    source: str = "normal",
    method: str = "auto",
    chi2: float = 0.02,
    max_samples: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> dict[str, Any]:
    """Solve for the heights of the targets in a .npy file and write them as `SemiDiscreteOT.save`.

    A fit keeps `<output>.checkpoint` while it runs ("adam" does not): the same call goes on from it
    after a crash, Ctrl-C or kill -9, to the same bits. It is removed at the end.

    Args:
        targets: .npy file of y [N, D].
        output: safetensors file of y, nu, heights and the result; overwritten.
        nu: .npy file of weights [N]; None for equal ones.
        source: "normal", "uniform" or "gaussian_cdf".
        method: as of `SemiDiscreteOT.fit`, like all that follow.
        chi2: goal.
        max_samples: that may be scanned.
        max_seconds: wall time.
        seed: of the samples.
        callback: called after each stage; its record also says how many samples are `planned`.

    Returns:
        The result as a record of `otcuda solve --json`.

    Raises:
        ArgumentError, ShapeError, CorruptDataError: naming the argument or the file.
    """
    if source not in NAMED:
        raise ArgumentError(f"source is {source!r}, expected {', '.join(map(repr, NAMED))}")
    _check_output(output)
    ot = SemiDiscreteOT(read_array(targets), None if nu is None else read_array(nu), source)
    kept = Path(f"{os.fspath(output)}.checkpoint") if method != "adam" else None
    planned = ot.estimate(chi2, max_samples, method).samples
    said = None if callback is None else lambda record: callback({**record, "planned": planned})
    result = ot.fit(
        method, chi2=chi2, max_samples=max_samples, max_seconds=max_seconds, seed=seed,
        callback=said, checkpoint=kept,
    )  # fmt: skip
    ot.save(output)
    if kept is not None:
        kept.unlink(missing_ok=True)
    known = math.isfinite(result.efficiency)
    return {
        "schema": 1,
        "command": "solve",
        "output": os.fspath(output),
        "targets": ot.N,
        "dimension": ot.D,
        "chi2": result.chi2 if math.isfinite(result.chi2) else None,
        "chi2_interval": [x if math.isfinite(x) else None for x in result.chi2_interval],
        "converged": bool(result.converged),
        "stopped_by": result.stopped_by,
        "samples": int(result.samples),
        "scanned": int(result.scanned),
        "seconds": result.seconds,
        "efficiency": result.efficiency if known else None,
    }


def _check_output(output: str | os.PathLike[str]) -> None:
    """Says before the work what would go wrong after it."""
    path = Path(output)
    if path.is_dir():
        raise ArgumentError(f"output {path} is a folder, expected a file")
    if not path.parent.is_dir():
        raise ArgumentError(f"output {path}: there is no folder {path.parent}")


class Words:
    """Turns records of a fit into a line each, not more often than every ten seconds."""

    def __init__(self, say: Callable[[str], None]):
        self._say, self._last = say, time.monotonic()

    def __call__(self, record: dict[str, Any]) -> None:
        """Says what a measurement found, and now and then how far a fit is."""
        measured = "chi2" in record
        now = time.monotonic()
        if not measured and now - self._last < _EVERY:
            return
        self._last = now
        exact = "exact_chi2" in record  # of polygons, without samples
        scanned = f"{record['samples']} samples, " if record["samples"] else ""
        text = f"{record['stage']}: {scanned}{record['seconds']:.0f} s"
        planned = record.get("planned", 0)
        if not measured and record["samples"] < planned:  # a guess: nothing to say beyond it
            text += f", about {100 * record['samples'] / planned:.0f} % of what is planned"
        if exact:
            text += f", chi2 {record['exact_chi2']:.4g}"
        if measured:
            low, high = record["chi2_interval"]
            text += f", chi2 {record['chi2']:.4g} ({low:.4g} to {high:.4g})"
        self._say(text)

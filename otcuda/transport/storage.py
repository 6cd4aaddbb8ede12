# SPDX-License-Identifier: Apache-2.0
"""Files of fitted transport problems: safetensors, with the rest as JSON in its header."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from otcuda._io import atomic_write
from otcuda.errors import ArgumentError, CorruptDataError
from otcuda.transport.arrays import Home
from otcuda.transport.fitting import FitResult
from otcuda.transport.problem import Problem
from otcuda.transport.sources import NAMED, Source

_FORMAT = "otcuda.transport"
_VERSION = 1


@dataclass(frozen=True)
class Saved:
    """What a file holds: y [N, D], nu [N], heights float64 [N] or None, source, result."""

    y: Any
    nu: np.ndarray
    heights: np.ndarray | None
    source: Any
    result: FitResult | None


def save(
    path: str | os.PathLike[str], problem: Problem, h: np.ndarray | None, result: FitResult | None
) -> None:
    """Write a problem and the heights of its cells; `path` is whole or as it was."""
    from safetensors.numpy import save as to_bytes

    tensors = {"y": problem.y, "nu": problem.nu}
    if h is not None:
        tensors["heights"] = problem.heights_of_targets(h)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": "numpy" if problem.home.device is None else "torch",
        "source": problem.source.name,
        "result": None if result is None else result.as_dict(),
    }
    atomic_write(path, to_bytes(tensors, {_FORMAT: json.dumps(header, default=float)}))


def load(path: str | os.PathLike[str], device: Any) -> Saved:
    """Read what `save` wrote.

    Raises:
        CorruptDataError: another kind of file, a damaged one, or one of a later version.
    """
    data = Path(path).read_bytes()
    tensors, header = _parse(data, path)
    y = tensors["y"]
    kind = header.get("kind") if device is None else device
    if kind != "numpy":
        import torch

        y = Home(torch.device("cpu" if device is None else device), y.dtype.name).bring(y)
    result = header.get("result")
    try:
        if result is not None:
            result["chi2_interval"] = tuple(result["chi2_interval"])
            result["history"] = tuple(map(_record, result["history"]))
            result = FitResult(**result)
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(f"{path}: the result in it is damaged: {error}") from error
    return Saved(y, tensors["nu"], tensors.get("heights"), _source(header.get("source")), result)


def _record(record: dict[str, Any]) -> dict[str, Any]:
    interval = {k: tuple(v) for k, v in record.items() if k == "chi2_interval"}  # JSON has lists
    return {**record, **interval}


def _parse(data: bytes, path: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        tensors = from_bytes(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        header = json.loads(metadata[_FORMAT])
        version = header["version"]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptDataError(f"{path} is not a file of SemiDiscreteOT.save: {error}") from error
    if version != _VERSION:
        raise CorruptDataError(f"{path} has format version {version}; this otcuda reads {_VERSION}")
    _check_tensors(tensors, path)
    return tensors, header


def _check_tensors(tensors: dict[str, np.ndarray], path: Any) -> None:
    y, nu, h = tensors.get("y"), tensors.get("nu"), tensors.get("heights")
    fits = y is not None and nu is not None and y.ndim == 2 and nu.shape == y.shape[:1]
    if not fits or (h is not None and h.shape != nu.shape):
        raise CorruptDataError(f"{path}: y [N, D], nu [N] and heights [N] do not fit together")
    finite = np.isfinite(y).all() and np.isfinite(nu).all() and (nu >= 0).all()
    if not finite or not math.isclose(nu.sum(), 1, abs_tol=1e-4):
        raise CorruptDataError(f"{path}: y or nu hold numbers that no problem has")
    if h is not None and not np.isfinite(h[nu > 0]).all():
        raise CorruptDataError(f"{path}: heights are not finite")


def _source(name: Any) -> Source | str:
    if name in NAMED:
        return name

    def draw(n: int, key: int) -> Any:
        raise ArgumentError(
            f"the source ({name}) is not in the file; pass source= to SemiDiscreteOT.load"
        )

    return Source(draw, str(name))

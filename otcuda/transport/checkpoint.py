# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a fit: where it stands, in one safetensors file that is whole or as it was.

Samples and lists are not in it: they are made again from the keys of the pools, to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from otcuda._io import atomic_write
from otcuda.errors import ArgumentError, CorruptDataError

_FORMAT = "otcuda.fit"
_VERSION = 1


def digest(y: np.ndarray, nu: np.ndarray, *settings: Any) -> str:
    """What must be the same for a fit to go on: targets, weights, and settings by their repr."""
    found = hashlib.blake2b(digest_size=16)
    for part in (y, nu):
        found.update(np.ascontiguousarray(part).tobytes())
    found.update(repr(settings).encode())
    return found.hexdigest()


def save(
    path: str | os.PathLike[str], problem: str, arrays: dict[str, np.ndarray], numbers: Any
) -> None:
    """Writes arrays and what JSON can hold, for the problem of that digest."""
    from safetensors.numpy import save as to_bytes

    header = {"format": _FORMAT, "version": _VERSION, "problem": problem, "numbers": numbers}
    atomic_write(path, to_bytes(arrays, {_FORMAT: json.dumps(header, default=float)}))


def load(
    path: str | os.PathLike[str], problem: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """What `save` wrote, or None where there is no file.

    Raises:
        ArgumentError: the file belongs to another problem, goal or seed.
        CorruptDataError: not such a file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    if not Path(path).exists():
        return None
    data = Path(path).read_bytes()
    try:
        arrays = from_bytes(data)
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_FORMAT])
        found, version, numbers = header["problem"], header["version"], header["numbers"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CorruptDataError(f"{path} is not a checkpoint of a fit: {error}") from error
    if version != _VERSION:
        raise CorruptDataError(f"{path} has version {version}; this otcuda reads {_VERSION}")
    if found != problem:
        raise ArgumentError(
            f"checkpoint {path} belongs to other targets, weights, source, goal, method or seed; "
            "remove it, or name another file"
        )
    return arrays, numbers

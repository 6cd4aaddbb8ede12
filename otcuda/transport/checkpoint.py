# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a fit: where it stands, in one safetensors file that is whole or as it was.

Samples and lists are not in it: they are made again from the keys of the pools, to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from otcuda._io import atomic_write
from otcuda.errors import ArgumentError, CorruptDataError

_FORMAT = "otcuda.fit"
_VERSION = 3


class Checkpoint:
    """Where one fit is kept.

    Args:
        path: of the file.
        y: targets; with `nu` and `settings` what must be the same for a fit to go on.
        nu: weights.
        settings: anything with a repr.

    Attributes:
        every: seconds after which a long stage should write again.
    """

    every = 10.0

    def __init__(self, path: str | os.PathLike[str], y: np.ndarray, nu: np.ndarray, *settings: Any):
        self.path = path
        found = hashlib.blake2b(digest_size=16)
        for part in (y, nu):
            found.update(np.ascontiguousarray(part).data)
        found.update(repr(settings).encode())
        self._problem = found.hexdigest()
        self._written = monotonic()

    def due(self) -> bool:
        """Whether so long has passed since the last writing."""
        return monotonic() - self._written >= self.every

    def save(self, arrays: dict[str, np.ndarray], numbers: Any) -> None:
        """Writes arrays and what JSON can hold."""
        from safetensors.numpy import save as to_bytes

        header = {"format": _FORMAT, "version": _VERSION, "problem": self._problem}
        text = json.dumps(header | {"numbers": numbers}, default=float)
        atomic_write(self.path, to_bytes(arrays, {_FORMAT: text}))
        self._written = monotonic()

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """What `save` wrote, or None where there is no file; raises as `parse`."""
        data = self.read()
        return None if data is None else self.parse(data)

    def read(self) -> bytes | None:
        """The bytes of the file, or None where there is none."""
        path = Path(self.path)
        return path.read_bytes() if path.exists() else None

    def parse(self, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What `save` wrote, from the bytes of the file.

        Raises:
            ArgumentError: the file belongs to another problem, goal or seed.
            CorruptDataError: not such a file, or a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load as from_bytes

        try:
            arrays = from_bytes(data)
            size = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_FORMAT])
            found, version, numbers = header["problem"], header["version"], header["numbers"]
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CorruptDataError(f"{self.path} is not a checkpoint of a fit: {error}") from error
        if version != _VERSION:
            raise CorruptDataError(
                f"{self.path} has version {version}; this otcuda reads {_VERSION}"
            )
        if found != self._problem:
            raise ArgumentError(
                f"checkpoint {self.path} belongs to other targets, weights, source, goal, method "
                "or seed; remove it, or name another file"
            )
        return arrays, numbers

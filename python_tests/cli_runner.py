# SPDX-License-Identifier: Apache-2.0
"""`otcuda ...` inside the test process: `run(...)` gives exit code, stdout and stderr."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from otcuda.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: str


def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """The command line with these arguments; pipes are byte buffers, none is a terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    with mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err):
        code = main([str(argument) for argument in arguments])
    return Result(code, out.buffer.getvalue(), err.buffer.getvalue().decode())


def photograph(width: int = 48, height: int = 32, seed: int = 0) -> np.ndarray:
    """Something with edges and gradients, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()

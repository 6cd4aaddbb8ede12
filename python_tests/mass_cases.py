# SPDX-License-Identifier: Apache-2.0
"""The cases of cell_mass, the same for CPU, emulator, PTX runner and device."""

from __future__ import annotations

import numpy as np

# name -> (B, N, dtype of the weights or None, their scale)
CASES = {
    "no sample": (0, 3, None, 1),
    "one cell": (700, 1, None, 1),
    "few cells": (3000, 65, None, 1),
    "many cells": (900, 20_000, None, 1),
    "float32": (1500, 33, "f4", 1),
    "float64": (700, 20, "f8", 1),
    "many weighted": (300, 7000, "f4", 1),
    "no weighted sample": (0, 4, "f8", 1),
    "zero weights": (40, 3, "f4", 0),
    "subnormal weights": (200, 5, "f8", 5e-322),
    "huge weights": (200, 5, "f8", 1e300),
}


def case(name):
    """Cells [B] with marks of -1 among them, N, and weights [B] or None."""
    B, N, dtype, scale = CASES[name]
    rng = np.random.default_rng([B, N])
    index = rng.integers(-1, N, B)
    return index, N, None if dtype is None else (rng.standard_normal(B) * scale).astype(dtype)

# SPDX-License-Identifier: Apache-2.0
"""Rewrite the golden files: python tools/make_golden.py [name ...]. One section a file."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "python_tests" / "golden"
sys.path.insert(0, str(ROOT / "python_tests"))


def power_argmax() -> None:
    """Winners and value bits of every case at the portable level."""
    import argmax_cases
    import numpy as np

    import otcuda

    otcuda.set_simd_level("portable")
    values, indices = [], []
    for _, x, y, h in argmax_cases.cases():
        value, index = otcuda.power_argmax(x, y, h)
        values.append(value.view("u4"))
        indices.append(index.astype("i4"))
    np.savez_compressed(
        GOLDEN / "power_argmax_v1.npz", bits=np.concatenate(values), index=np.concatenate(indices)
    )


SECTIONS = {"power_argmax": power_argmax}

if __name__ == "__main__":
    for name in sys.argv[1:] or SECTIONS:
        SECTIONS[name]()
        print("made", name)

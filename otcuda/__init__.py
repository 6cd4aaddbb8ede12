# SPDX-License-Identifier: Apache-2.0
"""Exact semi-discrete optimal transport kernels, and the image codec built on them.

Names are loaded when first used: `import otcuda` imports neither torch nor the native core.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module that defines it
_HOME = {
    "backend_info": "otcuda._ops",
    "cell_mass": "otcuda._ops",
    "heights_adam_solve": "otcuda._heights",
    "heights_adam_step": "otcuda._heights",
    "HeightsState": "otcuda._heights",
    "power_argmax": "otcuda._power",
    "power_topk": "otcuda._power",
    "PowerIndex": "otcuda._power_index",
    "SemiDiscreteOT": "otcuda.transport",
    "set_memory_limit": "otcuda._ops",
    "set_num_threads": "otcuda._ops",
    "set_simd_level": "otcuda._ops",
    "source_samples": "otcuda._ops",
    "Error": "otcuda.errors",
    "ArgumentError": "otcuda.errors",
    "BackendError": "otcuda.errors",
    "BudgetError": "otcuda.errors",
    "CorruptDataError": "otcuda.errors",
    "CorruptHeaderError": "otcuda.errors",
    "DeviceError": "otcuda.errors",
    "IndexMismatchError": "otcuda.errors",
    "Interrupted": "otcuda.errors",
    "LimitError": "otcuda.errors",
    "ModelMismatchError": "otcuda.errors",
    "RankError": "otcuda.errors",
    "ShapeError": "otcuda.errors",
    "TableMismatchError": "otcuda.errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'otcuda' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

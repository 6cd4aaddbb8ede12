# SPDX-License-Identifier: Apache-2.0
"""Exact semi-discrete optimal transport kernels, and the image codec built on them.

Names are loaded when first used: `import otcuda` imports neither torch nor the native core.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_PACKAGES = ("codec", "coding", "evaluation", "transport")  # training asks for torch when imported

__all__ = sorted(_HOME)

if TYPE_CHECKING:  # what checkers and editors see; the same names as in _HOME
    from otcuda import codec as codec
    from otcuda import coding as coding
    from otcuda import evaluation as evaluation
    from otcuda import transport as transport
    from otcuda._heights import HeightsState as HeightsState
    from otcuda._heights import heights_adam_solve as heights_adam_solve
    from otcuda._heights import heights_adam_step as heights_adam_step
    from otcuda._ops import backend_info as backend_info
    from otcuda._ops import cell_mass as cell_mass
    from otcuda._ops import set_memory_limit as set_memory_limit
    from otcuda._ops import set_num_threads as set_num_threads
    from otcuda._ops import set_simd_level as set_simd_level
    from otcuda._ops import source_samples as source_samples
    from otcuda._power import power_argmax as power_argmax
    from otcuda._power import power_topk as power_topk
    from otcuda._power_index import PowerIndex as PowerIndex
    from otcuda.errors import ArgumentError as ArgumentError
    from otcuda.errors import BackendError as BackendError
    from otcuda.errors import BudgetError as BudgetError
    from otcuda.errors import CorruptDataError as CorruptDataError
    from otcuda.errors import CorruptHeaderError as CorruptHeaderError
    from otcuda.errors import DeviceError as DeviceError
    from otcuda.errors import Error as Error
    from otcuda.errors import IndexMismatchError as IndexMismatchError
    from otcuda.errors import Interrupted as Interrupted
    from otcuda.errors import LimitError as LimitError
    from otcuda.errors import ModelMismatchError as ModelMismatchError
    from otcuda.errors import RankError as RankError
    from otcuda.errors import ShapeError as ShapeError
    from otcuda.errors import TableMismatchError as TableMismatchError
    from otcuda.transport import SemiDiscreteOT as SemiDiscreteOT
else:

    def __getattr__(name: str) -> Any:
        if name in _PACKAGES:
            return importlib.import_module(f"otcuda.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'otcuda' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PACKAGES})

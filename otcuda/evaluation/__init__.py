# SPDX-License-Identifier: Apache-2.0
"""Quality of compressed pictures: metrics, data sets, standard codecs, and the report on them.

Names are loaded when first used; only `Perceptual` and `Reference` need torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from otcuda._torch import need_torch

# name -> module that defines it
_HOME = {
    "CODECS": "otcuda.evaluation.baselines",
    "constant": "otcuda.evaluation.baselines",
    "fill": "otcuda.evaluation.baselines",
    "DATASETS": "otcuda.evaluation.datasets",
    "Picture": "otcuda.evaluation.datasets",
    "PictureSet": "otcuda.evaluation.datasets",
    "find_pictures": "otcuda.evaluation.datasets",
    "read_picture": "otcuda.evaluation.datasets",
    "ms_ssim": "otcuda.evaluation.metrics",
    "psnr": "otcuda.evaluation.metrics",
    "Perceptual": "otcuda.evaluation.networks",
    "Reference": "otcuda.evaluation.networks",
    "Curve": "otcuda.evaluation.rates",
    "bd_rate": "otcuda.evaluation.rates",
    "Evaluation": "otcuda.evaluation.report",
    "OtcudaCodec": "otcuda.evaluation.runner",
    "evaluate": "otcuda.evaluation.runner",
    "table": "otcuda.evaluation.report",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'otcuda.evaluation' has no attribute {name!r}")
    if name in ("Perceptual", "Reference"):
        need_torch(name)
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

# SPDX-License-Identifier: Apache-2.0
"""Quality of compressed pictures: metrics, data sets, standard codecs, and the report on them.

Names are loaded when first used; only `Perceptual` and `Reference` need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:  # what checkers and editors see; the same names as in _HOME
    from otcuda.evaluation.baselines import CODECS as CODECS
    from otcuda.evaluation.baselines import constant as constant
    from otcuda.evaluation.baselines import fill as fill
    from otcuda.evaluation.datasets import DATASETS as DATASETS
    from otcuda.evaluation.datasets import Picture as Picture
    from otcuda.evaluation.datasets import PictureSet as PictureSet
    from otcuda.evaluation.datasets import find_pictures as find_pictures
    from otcuda.evaluation.datasets import read_picture as read_picture
    from otcuda.evaluation.metrics import ms_ssim as ms_ssim
    from otcuda.evaluation.metrics import psnr as psnr
    from otcuda.evaluation.networks import Perceptual as Perceptual
    from otcuda.evaluation.networks import Reference as Reference
    from otcuda.evaluation.rates import Curve as Curve
    from otcuda.evaluation.rates import bd_rate as bd_rate
    from otcuda.evaluation.report import Evaluation as Evaluation
    from otcuda.evaluation.report import table as table
    from otcuda.evaluation.runner import OtcudaCodec as OtcudaCodec
    from otcuda.evaluation.runner import evaluate as evaluate
else:

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

# SPDX-License-Identifier: Apache-2.0
"""The codec: picture -> auto-encoder -> OT quantiser -> arithmetic coder -> `.otc`, and back."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "FileInfo": "bitstream",
    "info": "bitstream",
    "compress": "codec",
    "decompress": "codec",
    "Model": "model",
    "load_model": "model",
    "Models": "families",
    "load_models": "families",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:  # what checkers and editors see; the same names as in _HOME
    from otcuda.codec.bitstream import FileInfo as FileInfo
    from otcuda.codec.bitstream import info as info
    from otcuda.codec.codec import compress as compress
    from otcuda.codec.codec import decompress as decompress
    from otcuda.codec.families import Models as Models
    from otcuda.codec.families import load_models as load_models
    from otcuda.codec.model import Model as Model
    from otcuda.codec.model import load_model as load_model
else:

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'otcuda.codec' has no attribute {name!r}")
        return getattr(importlib.import_module(f"otcuda.codec.{_HOME[name]}"), name)

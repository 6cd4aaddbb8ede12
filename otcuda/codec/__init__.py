# SPDX-License-Identifier: Apache-2.0
"""The codec: picture -> auto-encoder -> OT quantiser -> arithmetic coder -> `.otc`, and back."""

from __future__ import annotations

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'otcuda.codec' has no attribute {name!r}")
    return getattr(importlib.import_module(f"otcuda.codec.{_HOME[name]}"), name)

# SPDX-License-Identifier: Apache-2.0
"""The door to torch, which is an extra: without it, one line says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from otcuda.errors import BackendError

INSTALL = "pip install 'otcuda[torch]'"


def need_torch(what: str) -> Any:
    """The module torch.

    Args:
        what: needs it, for the message.

    Raises:
        BackendError: it cannot be imported.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise BackendError(f"{what} needs torch: {INSTALL} ({error})") from error

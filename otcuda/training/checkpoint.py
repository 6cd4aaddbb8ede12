# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file with a JSON state, never pickle; the two newest are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from otcuda._io import atomic_write

KEPT = 2


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], state: dict) -> Path:
    """Write `step-00001234.safetensors` whole or not at all, and forget all but the newest two.

    Args:
        folder: where the checkpoints of one stage lie; made if missing.
        step: steps done.
        tensors: weights, averages, optimiser state.
        state: everything else, as JSON.

    Returns:
        The path written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    atomic_write(path, save(whole, metadata={"state": json.dumps({**state, "step": step})}))
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and state of one checkpoint."""
    with safe_open(path, framework="pt") as file:
        state = json.loads((file.metadata() or {}).get("state", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118


def newest_checkpoint(folder: Path, say=lambda _: None) -> tuple[dict[str, Tensor], dict] | None:
    """The newest checkpoint that can be read; a broken one is named through `say` and skipped."""
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            return load_checkpoint(path)
        except (SafetensorError, OSError, ValueError) as error:
            say(f"{path} cannot be read ({error}); taking the one before it")
    return None

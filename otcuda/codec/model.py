# SPDX-License-Identifier: Apache-2.0
"""Weights of the codec: one safetensors file with networks (int8 and fp16), integers and tables.

Everything is read with NumPy alone; networks are packed when a picture first goes through them.
torch comes in where a gradient is wanted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from otcuda import _nets
from otcuda._io import atomic_write
from otcuda._torch import need_torch
from otcuda.codec.bitstream import CUSTOM_MODEL
from otcuda.codec.integer_context import IntegerContext
from otcuda.errors import ArgumentError, ModelMismatchError

FORMATS = (1, 2, 3)  # the second may hold networks in int8, the third a picture filter
SCALE = ".scale"  # name of the scales of a weight in int8, one an output
ROUNDED_FROM = 1 << 14  # numbers from which on a convolution is stored in int8
NEEDED = {"id", "config", "digest"}  # of the record in a weights file
SUFFIX = ".safetensors"
PACKAGED = Path(__file__).parent.parent / "data"  # where the weights of the package lie
SHIPPED = "weights" + SUFFIX  # those for low rates, which are always there
TRAINED_STEPS = (128, 214)  # of weights that do not say
_shipped: dict[str, Model] = {}


class Model:
    """Weights of one release.

    Attributes:
        id: number of the release, 0 to 6, or 7 for weights of one's own.
        config: sizes of the networks, as `CodecConfig` takes them.
        training: what the weights were trained on and how far, for people.
        digest: SHA-256 of names, shapes, types and bytes of all tensors.
        tensors: everything, by name.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        self.tensors = dict(tensors)
        self.id = int(record["id"])
        self.config = dict(record["config"])
        self.training = dict(record.get("training", {}))
        self.digest = digest_of(self.tensors)
        if not 0 <= self.id <= CUSTOM_MODEL:
            raise ModelMismatchError(f"the model's id is {self.id}; it must lie in [0, 7]")

    @functools.cached_property
    def context(self) -> IntegerContext:
        """The integer context model with its tables."""
        return IntegerContext(self.part("context."))

    @functools.cached_property
    def analysis(self) -> Any:
        """Handle of the native analysis, packed when first used."""
        return _nets.load_net_analysis(self.network("analysis."))

    @functools.cached_property
    def synthesis(self) -> Any:
        """Handle of the native synthesis, packed when first used."""
        return _nets.load_net_synthesis(self.network("synthesis."))

    @functools.cached_property
    def perception(self) -> Any:
        """Handle of the native perceptual head, or None where the weights have none."""
        part = self.network("head.")
        return _nets.load_net_head(part) if part else None

    @functools.cached_property
    def net(self) -> Any:
        """The same in torch, a `networks.Codec` in fp32; its context model is unused."""
        torch = need_torch("Model.net")

        from otcuda.codec.networks import Codec, CodecConfig

        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in self.config.items()}
        net = Codec(CodecConfig(**sizes)).eval().requires_grad_(False)
        for name in ("analysis", "synthesis"):
            part = self.network(name + ".")
            weights = {k: torch.from_numpy(v.astype(np.float32)) for k, v in part.items()}
            getattr(net, name).load_state_dict(weights)
        return net.to(memory_format=torch.channels_last)

    @functools.cached_property
    def head(self) -> Any:
        """The perceptual head in torch, or None where the weights have none."""
        part = self.network("head.")
        if not part:
            return None
        torch = need_torch("Model.head")

        from otcuda.codec.head import PerceptualHead
        from otcuda.codec.networks import CodecConfig

        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in self.config.items()}
        head = PerceptualHead(CodecConfig(**sizes)).eval().requires_grad_(False)
        head.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in part.items()})
        return head

    @functools.cached_property
    def grey_off(self) -> np.ndarray:
        """Channels that carry colour and stay silent in a grey picture, bool [M]."""
        klt = self.tensors["synthesis.klt.weight"].astype(np.float64)
        energy = np.square(klt.reshape(3, -1, klt.shape[1])).sum(1)
        return energy[0] < 0.5 * energy.sum(0)

    def part(self, prefix: str) -> dict[str, np.ndarray]:
        """Tensors whose names start so, without the prefix."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def network(self, prefix: str) -> dict[str, np.ndarray]:
        """Weights of a network without the prefix; what is stored in int8 as float32."""
        part = self.part(prefix)
        scales = {k.removesuffix(SCALE): part.pop(k) for k in list(part) if k.endswith(SCALE)}
        return part | {k: part[k].astype(np.float32) * scale for k, scale in scales.items()}

    @property
    def _format(self) -> int:
        if any(name.startswith("synthesis.filter.") for name in self.tensors):
            return 3
        return 2 if any(name.endswith(SCALE) for name in self.tensors) else 1

    def save(self, path: str | Path) -> None:
        """Write the weights whole or not at all."""
        record = {
            "format": self._format,
            "id": self.id,
            "config": self.config,
            "training": self.training,
            "digest": self.digest,
        }
        atomic_write(path, save(self.tensors, metadata={"otcuda": json.dumps(record)}))

    def __repr__(self) -> str:
        size = sum(t.nbytes for t in self.tensors.values()) / 1e6
        return f"Model(id={self.id}, digest={self.digest[:8]}, {size:.1f} MB)"


def digest_of(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the tensors in the order of their names, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}|{tensor.dtype.str}|{tensor.shape}|".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def load_model(path: str | Path | None = None) -> Model:
    """Read weights.

    Args:
        path: a weights file; None takes those of the package for low rates (read once).

    Raises:
        FileNotFoundError: there is no such file.
        ModelMismatchError: the file is of another format, damaged, or no weights of this codec.
    """
    if path is not None:
        return _read(Path(path))
    if "weights" not in _shipped:
        _shipped["weights"] = _read(PACKAGED / SHIPPED)
    return _shipped["weights"]


def read_record(path: Path) -> dict[str, Any]:
    """What a weights file says of itself: id, config, training, digest; no tensor is read.

    Raises:
        FileNotFoundError: there is no such file.
        ModelMismatchError: the file is of another format, or no weights of this codec.
    """
    with _opened(path) as file:
        return _record_of(file, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there are no weights here")
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, ValueError) as error:
        if isinstance(error, ModelMismatchError):
            raise
        raise ModelMismatchError(f"{path} is no weights file: {error}") from error


def _record_of(file: Any, path: Path) -> dict[str, Any]:
    record = json.loads((file.metadata() or {}).get("otcuda", "null"))
    if (
        not isinstance(record, dict)
        or record.get("format") not in FORMATS
        or NEEDED - record.keys()
    ):
        known = f"{FORMATS[0]} to {FORMATS[-1]}"
        raise ModelMismatchError(f"{path} holds no weights of this codec in a format of {known}")
    return record


def _read(path: Path) -> Model:
    with _opened(path) as file:
        record = _record_of(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = Model(tensors, record)
    if model.digest != record.get("digest"):
        raise ModelMismatchError(
            f"{path} is damaged: its digest is {model.digest[:8]}, it should be "
            f"{str(record.get('digest'))[:8]}"
        )
    return model


def export_model(
    net: Any,
    context: Mapping[str, np.ndarray],
    *,
    head: Any = None,
    extra: Mapping[str, np.ndarray] | None = None,
    id: int = CUSTOM_MODEL,
    training: Mapping[str, Any] | None = None,
) -> Model:
    """Weights from trained parts: large convolutions in int8, the rest of the networks in fp16.

    Args:
        net: a trained `networks.Codec`.
        context: arrays of the integer context model.
        head: a trained `PerceptualHead`, or None.
        extra: further tensors, such as the codebooks of the fixed mode (`fixed.*`).
        id: number of the release; CUSTOM_MODEL for weights of one's own.
        training: what to tell people about the training.

    Raises:
        ArgumentError: a weight does not fit into fp16.
    """
    tensors = {f"context.{k}": np.ascontiguousarray(v) for k, v in context.items()}
    tensors |= dict(extra or {})
    modules = {"analysis": net.analysis, "synthesis": net.synthesis, "head": head}
    for name, module in modules.items():
        for key, value in (module.state_dict() if module is not None else {}).items():
            weight = value.detach().cpu().float().contiguous().numpy()
            tensors |= stored_weight(f"{name}.{key}", weight)
    record = {"id": id, "config": asdict(net.config), "training": dict(training or {})}
    return Model(tensors, record)


def stored_weight(name: str, weight: np.ndarray) -> dict[str, np.ndarray]:
    """A weight as the file has it: int8 with a scale for each output, or fp16."""
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    if not np.isfinite(half).all():
        raise ArgumentError(f"{name} does not fit into fp16")
    # The linear transforms carry the whole picture, the branches what is added to it.
    if weight.ndim != 4 or weight.size < ROUNDED_FROM or name.split(".")[1] == "klt":
        return {name: half}
    rounded, scale = rounded_weight(weight)
    return {name: rounded, name + SCALE: scale}


def rounded_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A weight in int8, and the scale of each output, float32 [O, 1, ...].

    The scale is the one of least squared error among some that clip the largest weights.
    """
    axes = tuple(range(1, weight.ndim))
    largest = np.abs(weight).max(axes, keepdims=True)
    best = np.full_like(largest, np.inf)
    scale = np.ones_like(largest)
    for share in np.linspace(0.6, 1.0, 9, dtype=np.float32):
        tried = np.where(largest > 0, largest * share / 127, 1).astype(np.float32)
        error = np.square(_rounded(weight, tried) * tried - weight).sum(axes, keepdims=True)
        scale = np.where(error < best, tried, scale)
        best = np.minimum(best, error)
    return _rounded(weight, scale).astype(np.int8), scale


def _rounded(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(weight / scale), -127, 127)

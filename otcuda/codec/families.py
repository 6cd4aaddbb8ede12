# SPDX-License-Identifier: Apache-2.0
"""Weights at hand: a family for each range of rates, one container for all of them.

A file names the weights that wrote it, by a number or a digest. `Models` knows which weights lie in
a folder, reads them when they are first asked for, and finds those of a file. Which family codes a
picture is chosen in `otcuda.codec.codec`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from otcuda.codec.bitstream import CUSTOM_MODEL, Header
from otcuda.codec.model import (
    PACKAGED,
    SHIPPED,
    SUFFIX,
    TRAINED_STEPS,
    Model,
    load_model,
    read_record,
)
from otcuda.errors import ModelMismatchError


class Family:
    """One weights file, read when `model` is first asked for.

    Attributes:
        name: of the file.
        id: number of the release, or 7 for weights of one's own.
        digest: SHA-256 of the tensors, as the file says.
        steps: finest and coarsest index of the quantiser step that was trained.
        multiplier: c in lambda = c D^2 of the conditional heights that pay at a fixed quality, as
            measured when the weights were made; 0 where none do.

    Raises:
        ModelMismatchError: the record of the training is not one.
    """

    def __init__(
        self, path: Path | None, record: dict[str, Any], model: Model | None = None
    ) -> None:
        self._path, self._model = path, model
        self.name = "the weights given" if path is None else path.name
        self.id, self.digest = int(record["id"]), str(record["digest"])
        training = record.get("training", {})
        try:
            low, high = (int(step) for step in training.get("steps", TRAINED_STEPS))
            multiplier = float(training.get("multiplier", 0.0))
        except (TypeError, ValueError) as error:
            raise ModelMismatchError(f"{self.name}: training is {training}, {error}") from error
        if not 0 <= multiplier < math.inf:
            raise ModelMismatchError(f"{self.name}: multiplier is {multiplier}; it must be >= 0")
        self.steps, self.multiplier = (low, high), multiplier

    @property
    def model(self) -> Model:
        """The weights, read once."""
        if self._model is None:
            packaged = self._path == PACKAGED / SHIPPED  # which others may have read already
            self._model = load_model(None if packaged else self._path)
        return self._model

    @property
    def label(self) -> str:
        """What a file calls them: `release 1`, or the first digits of the digest."""
        return self.digest[:8] if self.id == CUSTOM_MODEL else f"release {self.id}"

    def wrote(self, header: Header) -> bool:
        """Whether a file is of these weights."""
        return header.model == self.id and header.digest.hex() in ("", self.digest[:8])


class Models(Sequence[Family]):
    """Families of weights, those of coarse steps first.

    Raises:
        ModelMismatchError: none at all, or two that a file could not tell apart.
    """

    def __init__(self, families: Sequence[Family], where: str) -> None:
        if not families:
            raise ModelMismatchError(f"{where} holds no weights of this codec")
        self._families = sorted(families, key=lambda family: -family.steps[0])
        labels = [family.label for family in families]
        for family in families:
            if labels.count(family.label) > 1:
                raise ModelMismatchError(f"{where} holds more than one weights of {family.label}")

    def __getitem__(self, k: Any) -> Any:
        return self._families[k]

    def __len__(self) -> int:
        return len(self._families)

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families)

    def find(self, header: Header) -> Family | None:
        """The family that wrote a file, or None where it is not at hand."""
        return next((family for family in self if family.wrote(header)), None)

    def writer(self, header: Header) -> Model:
        """The weights that wrote a file.

        Raises:
            ModelMismatchError: they are not at hand.
        """
        family = self.find(header)
        if family is None:
            wrote = header.digest.hex() if header.digest else f"release {header.model}"
            known = ", ".join(family.label for family in self)
            raise ModelMismatchError(
                f"the file was written with model {wrote}, at hand is {known}; pass --model "
                "(model=) with the weights that wrote it"
            )
        return family.model


def load_models(path: str | Path | None = None) -> Models:
    """The weights of a file, or all those of a folder.

    Args:
        path: a weights file, or a folder of them; None is the package's own folder, in which a
            file that cannot be read is passed over (`otcuda doctor` names it).

    Raises:
        FileNotFoundError: there is no such file or folder.
        ModelMismatchError: damaged, no weights of this codec, or two of one release.
    """
    if path is None:
        if "families" not in _packaged:
            _packaged["families"] = _of_folder(PACKAGED, strict=False)
        return _packaged["families"]
    path = Path(path)
    return _of_folder(path, strict=True) if path.is_dir() else as_models(load_model(path))


def as_models(model: Model | Models | None) -> Models:
    """What the argument `model` of `compress` and `decompress` stands for."""
    if model is None:
        return load_models()
    if isinstance(model, Models):
        return model
    record = {"id": model.id, "digest": model.digest, "training": model.training}
    return Models([Family(None, record, model)], "model=")


_packaged: dict[str, Models] = {}


def _of_folder(folder: Path, strict: bool) -> Models:
    families = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            families.append(Family(path, read_record(path)))
        except (ModelMismatchError, OSError):
            if strict:
                raise
    return Models(families, str(folder))

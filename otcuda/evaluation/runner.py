# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: codecs over pictures under both conventions of choosing a quality."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import otcuda
from otcuda.errors import ArgumentError, BudgetError, Error
from otcuda.evaluation.baselines import (
    CODECS,
    Codec,
    Encoded,
    bits_per_pixel,
    constant,
    fill,
    versions,
)
from otcuda.evaluation.datasets import Picture, PictureSet
from otcuda.evaluation.metrics import MS_SSIM_MIN_SIDE, Pixels, ms_ssim, psnr
from otcuda.evaluation.report import CONVENTIONS, METRICS, Evaluation, Fault, Mean, Row

if TYPE_CHECKING:
    from otcuda.evaluation.networks import Perceptual

DEFAULT_BPP = 0.03

Callback = Callable[[int, int, str], object]


class OtcudaCodec:
    """The codec of this package, as `evaluate` sees it.

    Args:
        realism: 0 for the least error, 1 for the most natural look.
        model: weights, from `otcuda.codec.load_model` or `load_models`; None takes those of the
            package.
        options: more keywords of `otcuda.codec.compress`, such as `effort`.
    """

    def __init__(self, realism: float = 0.0, model: Any = None, **options: Any) -> None:
        self.name = "otcuda" if realism == 0 else f"otcuda realism {realism:g}"
        self._realism = realism
        self._model = model
        self._options = {"model": model, **options}

    @property
    def finest(self) -> int:
        """The largest setting, a `quality` of `otcuda.codec.compress`."""
        from otcuda.codec.codec import best_quality

        return best_quality(self._model)

    def encode(self, image: Pixels, setting: int) -> bytes:
        """The file of a picture [H, W, 3], uint8, at one quality."""
        from otcuda import codec

        return codec.compress(image, quality=setting, **self._options)

    def decode(self, blob: bytes) -> Pixels:
        """The picture [H, W, 3] of a file."""
        from otcuda import codec

        return codec.decompress(blob, realism=self._realism, model=self._model)

    def fill(self, image: Pixels, budget_bytes: int) -> Encoded:
        """The best file of at most `budget_bytes`."""
        from otcuda import codec

        return Encoded(codec.compress(image, bytes=budget_bytes, **self._options), "bytes")

    def label(self, setting: int) -> str:
        """The quality."""
        return f"quality {setting}"


def evaluate(
    pictures: PictureSet | Sequence[Picture],
    codecs: Sequence[Codec | str] = ("otcuda", *CODECS),
    *,
    bpp: float | None = None,
    budget_bytes: int | None = None,
    quality: int | None = None,
    networks: Perceptual | None = None,
    callback: Callback = lambda done, total, what: None,
) -> Evaluation:
    """Run codecs over pictures under both conventions and measure rate, quality and time.

    "filled": each picture gets the best file within its bytes. "constant": each codec gets its
    finest setting whose mean rate is within the target. Pictures that cannot be read are skipped
    and named; a codec that fails on a picture is named and the others go on.

    Args:
        pictures: from `find_pictures`, or any pictures.
        codecs: `Codec`s, or names: "otcuda" or one of `CODECS`.
        bpp: bits a pixel of the whole file, 0.03 unless something else is given.
        budget_bytes: instead: the same number of bytes for each picture; "constant" then aims at
            their mean rate.
        quality: instead: a fixed setting of the first codec, which is run under "constant" alone;
            the others get the bytes that it took.
        networks: for LPIPS and DISTS, those whose weights are there.
        callback: takes (done, total, what) before each unit of work; an exception from it stops.

    Raises:
        ArgumentError: no picture, a codec that is not known, or more than one of bpp, budget_bytes
            and quality, or one that is not positive.
    """
    _check_target(bpp, budget_bytes, quality)
    run = _Run(pictures, [_codec(c) for c in codecs], networks, callback)
    if quality is not None:
        run.lead(quality)
    else:
        run.aim(budget_bytes, bpp or DEFAULT_BPP)
    run.choose_settings()
    run.measure()
    result = run.result
    result.budget_bytes, result.quality = budget_bytes, quality
    result.means = [run.mean(codec, c) for c in CONVENTIONS for codec in run.codecs_of(c)]
    return result


@dataclass
class _Choice:
    """The common setting of a codec and whether it meets the target."""

    setting: int
    reached: bool = True


class _Run:
    """One call of `evaluate`: pictures outside, codecs inside, so that features are shared."""

    def __init__(
        self,
        pictures: PictureSet | Sequence[Picture],
        codecs: list[Codec],
        networks: Perceptual | None,
        callback: Callback,
    ) -> None:
        if not isinstance(pictures, PictureSet):
            pictures = PictureSet("pictures", tuple(pictures))
        if not codecs or len({codec.name for codec in codecs}) != len(codecs):
            raise ArgumentError("codecs: give at least one, each once")
        if not pictures.pictures:
            raise ArgumentError("pictures: none given")
        name, count = Counter(p.name for p in pictures.pictures).most_common(1)[0]
        if count > 1:
            raise ArgumentError(f"pictures: {count} are called {name!r}")
        self.codecs = codecs
        self.networks = networks
        self.callback = callback
        self.result = Evaluation(pictures.name, 0.0, notes=list(pictures.notes))
        self.result.versions = _versions()
        self.pictures: list[Picture] = []
        self.areas: list[int] = []
        self.budgets: dict[str, int] = {}
        self.choices: dict[str, _Choice] = {}
        self.leader: Codec | None = None
        self.not_reached: dict[str, list[str]] = {codec.name: [] for codec in codecs}
        self._read_all(pictures)

    def _read_all(self, pictures: PictureSet) -> None:
        small = 0
        for k, picture in enumerate(pictures.pictures):
            self.callback(k, len(pictures.pictures), f"reading {picture.name}")
            try:
                image = picture.read()
            except (Error, OSError) as error:
                repeated = picture.name.rpartition("/")[2] + ": "
                reason = _reason(error).removeprefix(repeated)
                self.result.skipped.append(Fault(picture.name, reason))
                continue
            self.pictures.append(picture)
            self.areas.append(image.shape[0] * image.shape[1])
            small += min(image.shape[:2]) < MS_SSIM_MIN_SIDE
        if not self.pictures:
            named = "".join(f"; {fault.file}: {fault.reason}" for fault in self.result.skipped[:3])
            raise ArgumentError(f"pictures: none of {len(self.result.skipped)} can be read{named}")
        if small:
            left_out = f"no MS-SSIM of {small} of {len(self.pictures)} pictures"
            self.result.notes.append(f"{left_out}, with a side under {MS_SSIM_MIN_SIDE} pixels")

    def aim(self, budget_bytes: int | None, bpp: float) -> None:
        """The budget of each picture, and the target rate."""
        for picture, area in zip(self.pictures, self.areas, strict=True):
            # 0.57 * 800 / 8 is a hair under 57, and no byte may be lost by that
            self.budgets[picture.name] = budget_bytes or math.floor(bpp * area / 8 + 1e-9)
        if budget_bytes:
            bpp = float(np.mean([8 * budget_bytes / area for area in self.areas]))
        self.result.target_bpp = bpp

    def lead(self, quality: int) -> None:
        """Take budgets and target from the files of the first codec at a fixed setting."""
        self.leader = self.codecs[0]
        for picture in self.pictures:
            blob = self.leader.encode(picture.read(), quality)
            self.budgets[picture.name] = len(blob)
        rates = [
            8 * self.budgets[picture.name] / area
            for picture, area in zip(self.pictures, self.areas, strict=True)
        ]
        self.result.target_bpp = float(np.mean(rates))
        self.choices[self.leader.name] = _Choice(quality)

    def codecs_of(self, convention: str) -> list[Codec]:
        """A leader has a fixed quality, so it is not filled."""
        return [c for c in self.codecs if convention == "constant" or c is not self.leader]

    def choose_settings(self) -> None:
        """The common setting of each codec."""
        for k, codec in enumerate(self.codecs):
            if codec.name in self.choices:
                continue
            self.callback(k, len(self.codecs), f"{codec.name}: one setting for all pictures")
            images = _Again(self.pictures)
            try:
                found = constant(codec, images, self.result.target_bpp)
            except Error as error:
                self._fail(codec, "constant", images.current, error)
            else:
                self.choices[codec.name] = _Choice(found.setting, found.reached)

    def measure(self) -> None:
        """All rows."""
        units = [(codec, c) for c in CONVENTIONS for codec in self.codecs_of(c)]
        total = len(self.pictures) * len(units)
        for k, picture in enumerate(self.pictures):
            image = picture.read()
            score = _scorer(image, self.networks)
            for n, (codec, convention) in enumerate(units):
                self.callback(
                    k * len(units) + n, total, f"{picture.name}: {codec.name}, {convention}"
                )
                try:
                    row = self._row(codec, convention, picture, image)
                    if row is not None:
                        self.result.rows.append(dataclasses.replace(row[0], **score(row[1])))
                except BudgetError:
                    self.not_reached[codec.name].append(picture.name)
                except Error as error:
                    self._fail(codec, convention, picture.name, error)
        self.callback(total, total, "done")

    def _row(
        self, codec: Codec, convention: str, picture: Picture, image: Pixels
    ) -> tuple[Row, Pixels] | None:
        start = time.perf_counter()
        if convention == "filled":
            encoded = fill(codec, image, self.budgets[picture.name])
        elif codec.name in self.choices:
            setting = self.choices[codec.name].setting
            encoded = Encoded(codec.encode(image, setting), codec.label(setting))
        else:
            return None
        coded = time.perf_counter()
        decoded = codec.decode(encoded.blob)
        done = time.perf_counter()
        row = Row(
            codec=codec.name,
            convention=convention,
            file=picture.name,
            setting=encoded.setting,
            bytes=len(encoded.blob),
            bpp=bits_per_pixel(len(encoded.blob), image),
            width=image.shape[1],
            height=image.shape[0],
            encode_ms=1000 * (coded - start),
            decode_ms=1000 * (done - coded),
            psnr=psnr(image, decoded),
        )
        return row, decoded

    def _fail(self, codec: Codec, convention: str, file: str, error: Exception) -> None:
        self.result.failures.append(Fault(file, _reason(error), codec.name, convention))

    def mean(self, codec: Codec, convention: str) -> Mean:
        """The means of one codec under one convention."""
        key = (codec.name, convention)
        rows = [row for row in self.result.rows if (row.codec, row.convention) == key]
        filled = convention == "filled"
        choice = self.choices.get(codec.name)
        not_reached = tuple(self.not_reached[codec.name]) if filled else ()
        names = ("bytes", "bpp", "encode_ms", "decode_ms", *METRICS)
        return Mean(
            codec=codec.name,
            convention=convention,
            target_bpp=self.result.target_bpp,
            setting=None if filled or choice is None else codec.label(choice.setting),
            pictures=len(rows),
            reached=not not_reached if filled else choice is not None and choice.reached,
            not_reached=not_reached,
            **{name: _mean([getattr(row, name) for row in rows]) for name in names},
        )


class _Again:
    """Pictures read anew each time they are gone through; remembers the one it is at."""

    def __init__(self, pictures: list[Picture]) -> None:
        self._pictures = pictures
        self.current = ""

    def __iter__(self) -> Iterator[Pixels]:
        for picture in self._pictures:
            self.current = picture.name
            yield picture.read()


def _scorer(image: Pixels, networks: Perceptual | None) -> Callable[[Pixels], dict[str, Any]]:
    """What to add to a row: every metric but PSNR, the original's features computed once."""
    reference = None
    if networks is not None:
        from otcuda.evaluation.networks import Reference

        reference = Reference(networks, image)

    def score(decoded: Pixels) -> dict[str, Any]:
        large = min(image.shape[:2]) >= MS_SSIM_MIN_SIDE
        scores: dict[str, Any] = {"ms_ssim": ms_ssim(image, decoded) if large else None}
        return scores | (reference.scores(decoded) if reference else {})

    return score


def _codec(codec: Codec | str) -> Codec:
    if not isinstance(codec, str):
        return codec
    if codec == "otcuda":
        return OtcudaCodec()
    if codec not in CODECS:
        raise ArgumentError(f"codecs: {codec!r} is none of otcuda, {', '.join(CODECS)}")
    return CODECS[codec]


def _check_target(bpp: float | None, budget_bytes: int | None, quality: int | None) -> None:
    given = {"bpp": bpp, "budget_bytes": budget_bytes, "quality": quality}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ArgumentError(f"give one of bpp, budget_bytes and quality, not {' and '.join(given)}")
    for name, value in given.items():
        if not (value >= 0 if name == "quality" else 0 < value < math.inf):
            raise ArgumentError(f"{name} must be positive, got {value}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # str(error) holds the path, which the report names already
    return str(error).partition("\n")[0] or type(error).__name__


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _versions() -> dict[str, str]:
    return {
        "otcuda": otcuda.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **versions(),
    }

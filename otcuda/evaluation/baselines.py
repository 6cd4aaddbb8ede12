# SPDX-License-Identifier: Apache-2.0
"""Standard codecs through Pillow, and the two conventions of choosing their quality.

The conventions are never mixed: `constant` takes one setting for all pictures, `fill` for each
picture the finest that stays within a number of bytes. Both search a codec's scale of settings,
integers from 0 (coarsest) to `finest`, along which files grow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image

from otcuda.errors import ArgumentError, BackendError, BudgetError
from otcuda.evaluation.metrics import Pixels


class Codec(Protocol):
    """What `evaluate` asks of a codec.

    Attributes:
        name: in tables.
        finest: the largest setting.
    """

    name: str
    finest: int

    def encode(self, image: Pixels, setting: int) -> bytes:
        """The file of a picture [H, W, 3] at a setting in [0, finest]."""

    def decode(self, blob: bytes) -> Pixels:
        """The picture [H, W, 3] of a file."""

    def fill(self, image: Pixels, budget_bytes: int) -> Encoded:
        """The best file of at most `budget_bytes`; BudgetError where there is none."""

    def label(self, setting: int) -> str:
        """The setting in the codec's own words."""


@dataclass(frozen=True)
class Encoded:
    """A file and how it was made, in the codec's own words."""

    blob: bytes
    setting: str


@dataclass(frozen=True)
class Scale:
    """Settings 0 to `finest`, what each means to Pillow, and how it is written in tables."""

    finest: int
    options: Callable[[int], dict[str, Any]]
    label: Callable[[int], str]


@dataclass(frozen=True)
class PillowCodec:
    """A codec of Pillow.

    Attributes:
        name: in tables.
        format: Pillow's name of it.
        constant: the scale of the codec's quality.
        filled: the scale of its rate, where it has a rate control of its own.
    """

    name: str
    format: str
    constant: Scale
    filled: Scale | None = None

    @property
    def finest(self) -> int:
        """The largest setting."""
        return self.constant.finest

    def encode(self, image: Pixels, setting: int) -> bytes:
        """The file of a picture [H, W, 3], uint8, at a setting in [0, finest]."""
        return self._encode(image, self.constant, setting)

    def decode(self, blob: bytes) -> Pixels:
        """The picture [H, W, 3] of a file."""
        with Image.open(io.BytesIO(blob), formats=[self.format]) as picture:
            return np.asarray(picture.convert("RGB"))

    def fill(self, image: Pixels, budget_bytes: int) -> Encoded:
        """The finest file of at most `budget_bytes`; see the function `fill`."""
        scale = self.filled or self.constant
        encode = partial(self._encode, image, scale)
        blob, setting = _finest_within(encode, scale.finest, budget_bytes, self.name)
        return Encoded(blob, scale.label(setting))

    def label(self, setting: int) -> str:
        """The setting in the codec's own words."""
        return self.constant.label(setting)

    def _encode(self, image: Pixels, scale: Scale, setting: int) -> bytes:
        if not 0 <= setting <= scale.finest:
            raise ArgumentError(f"{self.name} has settings 0 to {scale.finest}, got {setting}")
        options = scale.options(setting)
        if self.format == "JPEG2000":  # more halvings than the picture allows are an error
            options["num_resolutions"] = min(6, min(image.shape[:2]).bit_length())
        file = io.BytesIO()
        try:
            Image.fromarray(image).save(file, self.format, **options)
        except KeyError:
            raise BackendError(f"this Pillow was built without {self.format}") from None
        except (OSError, ValueError) as error:
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise ArgumentError(f"{self.name} cannot encode {size} pixels: {error}") from None
        return file.getvalue()


def fill(codec: Codec, image: Pixels, budget_bytes: int) -> Encoded:
    """The best file of a picture within a number of bytes.

    Args:
        codec: one of `CODECS`, or any other `Codec`.
        image: picture, [H, W, 3], uint8.
        budget_bytes: the most the whole file may take.

    Raises:
        BudgetError: the codec's coarsest setting takes more; the message says how much.
    """
    encoded = codec.fill(image, budget_bytes)
    if len(encoded.blob) > budget_bytes:
        raise BudgetError(f"{codec.name} wrote {len(encoded.blob)} bytes, allowed {budget_bytes}")
    return encoded


@dataclass(frozen=True)
class Constant:
    """One setting for all pictures.

    Attributes:
        setting: on the codec's scale.
        bpp: mean over the pictures.
        reached: False where even the coarsest setting, then the one given, has more than asked.
    """

    setting: int
    bpp: float
    reached: bool


def constant(codec: Codec, images: Iterable[Pixels], bpp: float) -> Constant:
    """The finest setting whose files have at most `bpp` bits a pixel in the mean over the pictures.

    Args:
        codec: one of `CODECS`, or any other `Codec`.
        images: pictures, [H, W, 3], uint8; gone through once a setting that is tried, so that it
            may read them from disk each time.
        bpp: bits of the whole file over height x width.
    """
    tried: dict[int, float] = {}

    def mean_bpp(setting: int) -> float:
        if setting not in tried:
            rates = [bits_per_pixel(len(codec.encode(x, setting)), x) for x in images]
            tried[setting] = float(np.mean(rates))
        return tried[setting]

    setting = _bisect(lambda s: mean_bpp(s) <= bpp, codec.finest)
    reached = setting >= 0
    return Constant(max(setting, 0), mean_bpp(max(setting, 0)), reached)


def bits_per_pixel(size_bytes: int, image: Pixels) -> float:
    """Bits of the whole file over height x width."""
    return 8 * size_bytes / (image.shape[0] * image.shape[1])


def versions() -> dict[str, str]:
    """Versions of Pillow and the libraries behind `CODECS`, "" where one is missing."""
    import PIL
    from PIL import features

    libraries = {"jpeg": "jpg", "jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}
    built = features.get_supported()  # an older Pillow does not know the name avif
    found = {
        name: (features.version(library) or "") if library in built else ""
        for name, library in libraries.items()
    }
    return {"pillow": PIL.__version__, **found}


def _bisect(fits: Callable[[int], bool], finest: int) -> int:
    """The largest setting in [0, finest] that fits, or -1; all coarser ones are taken to fit."""
    low, high = -1, finest + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _finest_within(
    encode: Callable[[int], bytes], finest: int, budget_bytes: int, name: str
) -> tuple[bytes, int]:
    best: dict[int, bytes] = {}

    def fits(setting: int) -> bool:
        blob = encode(setting)
        if len(blob) > budget_bytes:
            return False
        best[setting] = blob
        return True

    setting = _bisect(fits, finest)
    if setting < 0:
        raise BudgetError(
            f"{name} needs {len(encode(0))} bytes at its coarsest, allowed are {budget_bytes}"
        )
    return best[setting], setting


def _quality(finest: int, coarsest: int = 0, **options: Any) -> Scale:
    return Scale(
        finest - coarsest,
        lambda s: {"quality": coarsest + s, **options},
        lambda s: f"quality {coarsest + s}",
    )


_JPEG2000 = {"irreversible": True, "mct": 1, "no_jp2": True}

CODECS: Mapping[str, PillowCodec] = {
    codec.name: codec
    for codec in (
        PillowCodec("jpeg", "JPEG", _quality(95, coarsest=1, optimize=True, progressive=True)),
        PillowCodec(
            "jpeg2000",
            "JPEG2000",
            Scale(  # PSNR from 10.0 dB in tenths
                500,
                lambda s: {**_JPEG2000, "quality_mode": "dB", "quality_layers": [10 + s / 10]},
                lambda s: f"{10 + s / 10:.1f} dB",
            ),
            Scale(  # compression ratio from 2^16 down to 1 in steps of 0.07 %
                16_000,
                lambda s: {
                    **_JPEG2000,
                    "quality_mode": "rates",
                    "quality_layers": [2 ** (16 - s / 1000)],
                },
                lambda s: f"rate {2 ** (16 - s / 1000):.1f}",
            ),
        ),
        PillowCodec("webp", "WEBP", _quality(100, method=6)),
        # libavif's tiles, and so its bytes, depend on the number of threads
        PillowCodec("avif", "AVIF", _quality(100, speed=6, subsampling="4:2:0", max_threads=1)),
    )
}

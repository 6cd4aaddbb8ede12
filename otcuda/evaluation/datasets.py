# SPDX-License-Identifier: Apache-2.0
"""Data sets by name, with what is known of them, and any folder of pictures.

Nothing is downloaded: a set lies where the caller or `OTCUDA_DATA` says. Where digests are known, a
file that differs is refused, because figures on it could not be compared with anybody's.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from otcuda._io import files_below
from otcuda.errors import ArgumentError, CorruptDataError, LimitError
from otcuda.evaluation.metrics import Pixels

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".avif", ".jp2", ".bmp", ".gif", ".ppm", ".tif", ".tiff")
)
MAX_PIXELS = 1 << 27
"""Larger pictures are refused before they are decoded."""


@dataclass(frozen=True)
class DataSet:
    """What is known of a published set of pictures.

    Attributes:
        title: its full name.
        counts: pictures by split; the first split is the one that results are usually quoted on.
        origin: who published it, and on what terms.
        sha256: digest of each file by name; empty where none is known.
    """

    title: str
    counts: dict[str, int]
    origin: str
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture of a set: its name, and where its pixels are, a file or an array [H, W, 3]."""

    name: str
    source: Path | Pixels

    def read(self) -> Pixels:
        """The pixels, [H, W, 3], uint8; see `read_picture`."""
        return read_picture(self.source) if isinstance(self.source, Path) else self.source


@dataclass(frozen=True)
class PictureSet:
    """Pictures to evaluate on, by name, and what a reader of the figures should know of them."""

    name: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()


def find_pictures(
    source: str | os.PathLike[str], data: str | os.PathLike[str] | None = None
) -> PictureSet:
    """The pictures of a set of `DATASETS`, of a folder and the folders in it, or a single file.

    Args:
        source: a name of `DATASETS`, or a path (`./kodak` is a folder, `kodak` the set).
        data: folder of the named set; without it, `OTCUDA_DATA/<name>`.

    Raises:
        ArgumentError: nothing is there, or files of a set with known digests are missing or differ.
    """
    name = os.fspath(source)
    if name in DATASETS:
        return _named_set(name, data)
    path = Path(source)
    if path.is_file():
        return PictureSet(path.name, (Picture(_shown(path.name), path),))
    if not path.is_dir():
        raise ArgumentError(
            f"{_shown(name)} is no file, no folder and none of the sets {', '.join(DATASETS)}"
        )
    pictures = _pictures_below(path)
    if not pictures:
        raise ArgumentError(f"{_shown(name)} holds no picture ({' '.join(sorted(SUFFIXES))})")
    return PictureSet(_shown(path.resolve().name), pictures)


def read_picture(path: Path) -> Pixels:
    """The pixels of a picture file as RGB, turned upright by its EXIF tag.

    16-bit greyscale keeps its upper 8 bits, transparent places lie over white, of an animation
    the first frame is taken, CMYK and palettes are converted by Pillow.

    Returns:
        [H, W, 3], uint8.

    Raises:
        CorruptDataError: not a picture, or a damaged one.
        LimitError: more than `MAX_PIXELS` pixels.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures: MAX_PIXELS decides
        try:
            with Image.open(file) as image:
                _check_size(path, image.size)
                return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
        except LimitError:
            raise
        except Image.DecompressionBombError as error:
            raise LimitError(f"{_shown(path.name)}: {error}") from None
        except Exception as error:  # Pillow's readers raise nearly every type on damaged files
            reason = str(error).partition("\n")[0] or type(error).__name__
            if "cannot identify" in reason:
                reason = "not a picture that Pillow knows"
            raise CorruptDataError(f"{_shown(path.name)}: {reason}") from None


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise LimitError(
            f"{_shown(path.name)}: {size[0]}x{size[1]} pixels, over the limit of {MAX_PIXELS}"
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I;16", "I")):  # convert("RGB") would clip at 255
        grey = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def _named_set(name: str, data: str | os.PathLike[str] | None) -> PictureSet:
    known = DATASETS[name]
    root = os.environ.get("OTCUDA_DATA")
    if data is None and not root:
        raise ArgumentError(
            f"say where the pictures of {name} are ({known.title}, {known.origin}): "
            f"by --data DIR, or by OTCUDA_DATA with a folder {name} in it"
        )
    folder = Path(data) if data is not None else Path(root or "", name)
    if not folder.is_dir():
        raise ArgumentError(
            f"{_shown(folder)} is not a folder; the pictures of {name} should be there"
        )
    if known.sha256:
        return PictureSet(name, _checked_pictures(name, folder, known.sha256))
    pictures = _pictures_below(folder)
    if not pictures:
        raise ArgumentError(f"{_shown(folder)} holds no picture of {name}")
    return PictureSet(name, pictures, _count_notes(known, len(pictures)))


def _count_notes(known: DataSet, count: int) -> tuple[str, ...]:
    unknown = "no digests are known, so the pictures themselves were not checked"
    splits = [split for split, expected in known.counts.items() if expected == count]
    if splits:
        return (f"{count} pictures, as many as {known.title}, {splits[0]}; {unknown}",)
    published = ", ".join(f"{split} {expected}" for split, expected in known.counts.items())
    return (
        f"{count} pictures, which is no published split of {known.title} ({published}); {unknown}",
    )


def _checked_pictures(name: str, folder: Path, sha256: dict[str, str]) -> tuple[Picture, ...]:
    missing = [file for file in sha256 if not (folder / file).is_file()]
    if missing:
        raise ArgumentError(
            f"{_few(missing)} of the {len(sha256)} files of {name} are missing in {_shown(folder)}"
        )
    differing = [
        file
        for file, digest in sha256.items()
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest
    ]
    if differing:
        raise ArgumentError(
            f"{_few(differing)} in {_shown(folder)} differ from the published {name}; "
            "name the folder by its path to evaluate on it under its own name"
        )
    return tuple(Picture(file, folder / file) for file in sha256)


def _few(files: list[str]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _pictures_below(folder: Path) -> tuple[Picture, ...]:
    files = files_below(folder, SUFFIXES)
    return tuple(Picture(_shown(path.relative_to(folder).as_posix()), path) for path in files)


def _shown(path: str | os.PathLike[str]) -> str:
    """A name that can be printed, whatever bytes the file system holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


_KODAK_SHA256 = [
    "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
]

DATASETS: dict[str, DataSet] = {
    "kodak": DataSet(
        "Kodak Lossless True Color Image Suite",
        {"all": 24},
        "Eastman Kodak, released for unrestricted use",
        {f"kodim{k:02d}.png": digest for k, digest in enumerate(_KODAK_SHA256, 1)},
    ),
    "clic2020": DataSet(
        "CLIC 2020",
        {
            "test": 428,
            "test, professional": 250,
            "test, mobile": 178,
            "validation": 102,
            "validation, professional": 41,
            "validation, mobile": 61,
        },
        "compression.cc, Unsplash licence",
    ),
    "clic2021": DataSet(
        "CLIC 2021",
        {"test": 60, "validation (professional of 2020)": 41},
        "compression.cc, Unsplash licence",
    ),
    "raise1k": DataSet(
        "RAISE-1k", {"all": 1000}, "University of Trento, raw camera pictures, for research"
    ),
    "div2k": DataSet(
        "DIV2K, high resolution",
        {"validation": 100, "training": 800, "both": 900},
        "ETH Zurich, NTIRE 2017, for research",
    ),
    "tecnick": DataSet(
        "Tecnick TESTIMAGES, sampling, 1200x1200", {"all": 100}, "testimages.org, CC BY-NC-SA"
    ),
    "celeba": DataSet(
        "CelebA",
        {"all": 202_599, "training": 162_770, "validation": 19_867, "test": 19_962},
        "Chinese University of Hong Kong, for research",
    ),
    "mtfl": DataSet(
        "MTFL, multi-task facial landmarks",
        {"all": 12_995, "training": 10_000, "test": 2_995},
        "Chinese University of Hong Kong, for research",
    ),
    "imdb-wiki": DataSet(
        "IMDB-WIKI",
        {"all": 523_051, "IMDb": 460_723, "Wikipedia": 62_328},
        "ETH Zurich, for research",
    ),
}

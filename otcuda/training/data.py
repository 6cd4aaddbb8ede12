# SPDX-License-Identifier: Apache-2.0
"""Training pictures: folders decoded once into one memory-mapped file, crops drawn from it.

Every crop is a function of (seed, step), so that a resumed run sees what an unbroken one does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from otcuda._io import atomic_write, files_below
from otcuda.errors import ArgumentError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif"}
LARGEST_EDGE = 4096


@dataclass(frozen=True)
class Source:
    """A folder of pictures and its share of the crops, relative to the other folders."""

    folder: Path
    weight: float = 1.0


def parse_source(text: str) -> Source:
    """`FOLDER` or `FOLDER=WEIGHT`, as the command line takes it."""
    name, equals, weight = text.rpartition("=")
    if not equals:
        return Source(Path(text))
    try:
        value = float(weight)
    except ValueError:
        return Source(Path(text))
    if not value > 0:
        raise ArgumentError(f"the weight of {name} is {weight}; it must be a positive number")
    return Source(Path(name), value)


def pictures_in(folder: Path) -> list[Path]:
    """Every picture file below a folder, sorted by name; what begins with a dot is none."""
    if not folder.is_dir():
        raise ArgumentError(f"{folder} is not a folder of pictures")
    return [path for path in files_below(folder, SUFFIXES) if path.is_file()]


def read_picture(path: Path) -> np.ndarray:
    """RGB, uint8 [H, W, 3], turned upright."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


class PackedPictures:
    """Pictures of several folders behind one memory map.

    Attributes:
        shapes: height and width of each picture, [n, 2].
        shares: probability with which each picture is drawn, [n].
    """

    def __init__(self, blob: Path, entries: Sequence[dict], weights: Sequence[float]) -> None:
        self._blob, self._weights = blob, weights
        self._bytes = np.memmap(blob, np.uint8, "r")
        self._entries = entries
        self.shapes = np.array([(e["height"], e["width"]) for e in entries])
        pixels = np.minimum(self.shapes.prod(1), 1 << 20).astype(float)
        source = np.array([e["source"] for e in entries])
        self.shares = np.zeros(len(entries))
        for k, weight in enumerate(weights):
            here = source == k
            if here.any():
                self.shares[here] = weight * pixels[here] / pixels[here].sum()
        self.shares /= self.shares.sum()

    def __len__(self) -> int:
        return len(self._entries)

    def picture(self, k: int) -> np.ndarray:
        """Picture k, uint8 [H, W, 3], a view of the memory map."""
        height, width = self.shapes[k]
        start = self._entries[k]["offset"]
        return self._bytes[start : start + height * width * 3].reshape(height, width, 3)

    def split(self, most: int) -> tuple[PackedPictures, list[np.ndarray]]:
        """Set pictures aside to judge by: one in twenty, evenly, at least one and at most `most`.

        Returns:
            The pictures that are left, and those set aside, uint8 [H, W, 3].

        Raises:
            ArgumentError: there is only one picture.
        """
        n = len(self)
        if n < 2:
            raise ArgumentError("one picture cannot be both trained on and judged by; give more")
        count = min(most, max(1, n // 20))
        aside = {(2 * k + 1) * n // (2 * count) for k in range(count)}
        kept = [entry for k, entry in enumerate(self._entries) if k not in aside]
        rest = PackedPictures(self._blob, kept, self._weights)
        return rest, [np.array(self.picture(k)) for k in sorted(aside)]

    def crops(self, count: int, size: int, seed: Sequence[int]) -> np.ndarray:
        """Random crops, flipped at random, uint8 [count, 3, size, size].

        Args:
            count: how many.
            size: edge in pixels; smaller pictures are continued by reflection.
            seed: whatever makes this call different from others, such as (seed, step).
        """
        rng = np.random.default_rng(list(seed))
        out = np.empty((count, 3, size, size), np.uint8)
        for slot, k in enumerate(rng.choice(len(self), count, p=self.shares)):
            picture = self._scaled(self.picture(k), size, rng)
            top = rng.integers(picture.shape[0] - size + 1)
            left = rng.integers(picture.shape[1] - size + 1)
            crop = picture[top : top + size, left : left + size]
            out[slot] = (crop[:, ::-1] if rng.random() < 0.5 else crop).transpose(2, 0, 1)
        return out

    @staticmethod
    def _scaled(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """The picture at a random scale, continued by reflection to `size` on both edges.

        Half of them as they are, a quarter smaller, a quarter larger: most training pictures have
        been reduced further than the photographs that people compress.
        """
        kind, position = rng.random(2)
        scale = 0.6 + 0.4 * position if kind < 0.25 else 1.0 + 0.6 * position if kind < 0.5 else 1.0
        if scale < 1:
            scale = max(scale, min(1.0, size / min(picture.shape[:2])))
        if abs(scale - 1) > 0.05:
            way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
            new = [max(min(size, n), round(n * scale)) for n in picture.shape[1::-1]]
            picture = np.asarray(Image.fromarray(picture).resize(new, way))
        missing = [(0, max(0, size - n)) for n in picture.shape[:2]]
        if missing == [(0, 0), (0, 0)]:
            return picture
        return np.pad(picture, [*missing, (0, 0)], "symmetric")


def pack_pictures(
    sources: Sequence[Source], cache: Path, say: Callable[[str], None] = lambda _: None
) -> PackedPictures:
    """Decode every picture once into `cache` and open the result.

    Files that are no pictures are named through `say` and left out. The cache is made anew when the
    list of files, their sizes or their times change.

    Args:
        sources: folders with their shares.
        cache: folder for the packed file and its index.
        say: takes one line of talk.

    Raises:
        ArgumentError: no picture was found.
    """
    files = [(k, path) for k, s in enumerate(sources) for path in pictures_in(s.folder)]
    stamp = hashlib.sha256()
    for k, path in files:
        status = path.stat()
        stamp.update(f"{k}|{path}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    cache.mkdir(parents=True, exist_ok=True)
    blob, index = cache / "pictures.u8", cache / "pictures.json"
    weights = [s.weight for s in sources]
    if index.exists() and blob.exists():
        stored = json.loads(index.read_text())
        if stored["stamp"] == stamp.hexdigest():
            return PackedPictures(blob, stored["pictures"], weights)
    entries = _decode_all(files, blob, say)
    if not entries:
        folders = ", ".join(str(s.folder) for s in sources)
        raise ArgumentError(f"no readable picture of at least 64 x 64 pixels in {folders}")
    record = {"stamp": stamp.hexdigest(), "pictures": entries}
    atomic_write(index, json.dumps(record).encode())
    return PackedPictures(blob, entries, weights)


def _decode_all(files, blob: Path, say) -> list[dict]:
    entries, offset = [], 0
    part = blob.with_suffix(".part")
    with part.open("wb") as out:
        for k, path in files:
            try:
                picture = read_picture(path)
            except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as e:
                say(f"{path} is left out: {e}")
                continue
            height, width = picture.shape[:2]
            if min(height, width) < 64 or max(height, width) > LARGEST_EDGE:
                say(f"{path} is left out: {width} x {height} pixels")
                continue
            out.write(picture.tobytes())
            entries.append({"source": k, "offset": offset, "height": height, "width": width})
            offset += picture.size
    part.replace(blob)
    return entries

# SPDX-License-Identifier: Apache-2.0
"""`otcuda demo`: a photograph compressed, and shown beside JPEG 2000 of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from otcuda import batch, codec
from otcuda._io import atomic_write, make_folder
from otcuda.errors import ArgumentError, BudgetError
from otcuda.evaluation.baselines import CODECS, fill
from otcuda.evaluation.metrics import MS_SSIM_MIN_SIDE, ms_ssim, psnr

STEPS = ("read", "load model", "compress", "decompress", "jpeg2000", "measure", "write")
LABEL_HEIGHT = 52
PAPER, INK = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class Panel:
    """One of the pictures side by side; `bytes` of the original are those of its pixels."""

    name: str
    bytes: int
    bpp: float
    psnr: float | None = None
    ms_ssim: float | None = None


def run(
    folder: Path,
    picture: str | None = None,
    bpp: float = 0.03,
    callback: Callable[[int, str], None] = lambda done, what: None,
) -> dict[str, Any]:
    """Compress a picture and write the `.otc`, the decoded PNG and the comparison into a folder.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        picture: a file; None for the bundled photograph.
        bpp: bits a pixel, header included, that are not exceeded.
        callback: takes the number of steps done and the name of the next.

    Returns:
        Plain values: `panels` with bytes, bpp and quality, `files`, `ms` of each step, `budget`.

    Raises:
        CorruptDataError: `picture` is no picture.
        BudgetError: so few bytes are not enough.
    """
    clock = _Clock(callback)
    with clock("read"):
        original = _bundled() if picture is None else batch.read_picture(picture)
    with clock("load model"):
        model = codec.load_model()
    with clock("compress"):
        data = codec.compress(original, bpp=bpp, model=model)
    with clock("decompress"):
        decoded = codec.decompress(data, model=model)
    with clock("jpeg2000"):
        rival, rival_bytes = _rival(original, len(data))
    with clock("measure"):
        panels = [
            Panel("original", original.size, 8 * original.size / _area(original)),
            _judged("otcuda", original, decoded, len(data)),
        ]
        if rival is not None:
            panels.append(_judged("JPEG 2000", original, rival, rival_bytes))
    with clock("write"):
        pictures = [original, decoded, *([] if rival is None else [rival])]
        names = _write(folder, data, decoded, side_by_side(panels, pictures))
    return {
        "schema": batch.SCHEMA,
        "command": "demo",
        "width": original.shape[1],
        "height": original.shape[0],
        "budget": int(bpp * _area(original) / 8 + 1e-9),
        "panels": [asdict(panel) for panel in panels],
        "files": names,
        "ms": clock.ms,
    }


def report(result: dict[str, Any]) -> str:
    """What `run` found, as text, with the next three commands."""
    lines = [f"{'':11}{'bytes':>9}{'bpp':>9}{'PSNR':>9}{'MS-SSIM':>10}"]
    for panel in result["panels"]:
        line = f"{panel['name']:11}{panel['bytes']:>9,}{panel['bpp']:>9.4f}"
        line += "" if panel["psnr"] is None else f"{panel['psnr']:>9.2f}"
        lines.append(line + ("" if panel["ms_ssim"] is None else f"{panel['ms_ssim']:>10.4f}"))
    lines += ["", "  ".join(f"{name} {ms:.0f} ms" for name, ms in result["ms"].items()), ""]
    lines += [f"wrote {name}" for name in result["files"]]
    coded = result["files"][0]
    lines += [
        "",
        "next:",
        "  otcuda compress YOUR.jpg -o small.otc --bytes 1474",
        f"  otcuda decompress {coded} -o natural.png --realism 1",
        "  otcuda doctor",
    ]
    return "\n".join(lines)


def side_by_side(panels: list[Panel], pictures: list[np.ndarray]) -> Image.Image:
    """The pictures in a row, each under its name, bytes, rate and quality."""
    gap = 8
    height, width = pictures[0].shape[:2]
    panel_width = max(width, 300)  # the label needs so much
    sheet_width = len(pictures) * (panel_width + gap) - gap
    sheet = Image.new("RGB", (sheet_width, height + LABEL_HEIGHT), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    for k, (panel, pixels) in enumerate(zip(panels, pictures, strict=True)):
        left = k * (panel_width + gap)
        draw.text((left + 4, 3), _label(panel), INK, font, spacing=3)
        sheet.paste(Image.fromarray(pixels).convert("RGB"), (left, LABEL_HEIGHT))
    return sheet


def _label(panel: Panel) -> str:
    first = f"{panel.name}: {panel.bytes:,} bytes, {panel.bpp:.3f} bpp"
    second = [] if panel.psnr is None else [f"PSNR {panel.psnr:.2f} dB"]
    second += [] if panel.ms_ssim is None else [f"MS-SSIM {panel.ms_ssim:.3f}"]
    return f"{first}\n{', '.join(second)}"


def _bundled() -> np.ndarray:
    with as_file(files("otcuda") / "data" / "demo.jpg") as path:
        return batch.read_picture(str(path))


def _rival(original: np.ndarray, size: int) -> tuple[np.ndarray | None, int]:
    """JPEG 2000 in the same bytes; None where it cannot go so low or Pillow lacks it."""
    rival = CODECS["jpeg2000"]
    try:
        blob = fill(rival, original, size).blob
    except (BudgetError, ArgumentError):
        return None, 0
    return rival.decode(blob), len(blob)


def _judged(name: str, original: np.ndarray, decoded: np.ndarray, size: int) -> Panel:
    large = min(original.shape[:2]) >= MS_SSIM_MIN_SIDE
    return Panel(
        name,
        size,
        8 * size / _area(original),
        psnr(original, decoded),
        ms_ssim(original, decoded) if large else None,
    )


def _area(image: np.ndarray) -> int:
    return image.shape[0] * image.shape[1]


def _write(folder: Path, data: bytes, decoded: np.ndarray, sheet: Image.Image) -> list[str]:
    make_folder(folder)
    coded, picture, comparison = (
        folder / name for name in ("demo.otc", "demo.png", "side-by-side.png")
    )
    atomic_write(coded, data)
    atomic_write(picture, lambda file: Image.fromarray(decoded).save(file, "PNG"))
    atomic_write(comparison, lambda file: sheet.save(file, "PNG"))
    return [str(coded), str(picture), str(comparison)]


class _Clock:
    """Wall milliseconds of each step."""

    def __init__(self, callback: Callable[[int, str], None]) -> None:
        self.ms: dict[str, float] = {}
        self._callback = callback

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._callback(len(self.ms), name)
        start = time.perf_counter()
        yield
        self.ms[name] = round(1000 * (time.perf_counter() - start), 1)

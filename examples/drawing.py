# SPDX-License-Identifier: Apache-2.0
"""Pictures of the examples, with Pillow alone: points, lines and words side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bb5500", "#222255",
    "#99ddff", "#997700", "#44bb99", "#882255",
]  # fmt: skip
GREY = "#bbbbbb"
_FINE = 3  # drawn so much larger, for smooth edges


class Panel:
    """A square picture of the plane.

    Args:
        low: lower left corner; high: upper right one.
        size: pixels a side.
        title: words above.
    """

    def __init__(self, low: float, high: float, size: int = 300, title: str = ""):
        self.size, self.title, self._low = size, title, low
        self._scale = _FINE * size / (high - low)
        self._image = Image.new("RGB", (_FINE * size, _FINE * size), "white")
        self._draw = ImageDraw.Draw(self._image)

    def _place(self, points: Any) -> np.ndarray:
        flat = np.asarray(points, float) - self._low
        return np.stack([flat[..., 0], self._scale**-1 * _FINE * self.size - flat[..., 1]], -1) * (
            self._scale
        )

    def dots(self, points: Any, colours: str | Sequence[str] = GREY, radius: float = 1.2) -> Panel:
        """Points [n, 2], in one colour or one each."""
        one = isinstance(colours, str)
        for at, (x, y) in enumerate(self._place(points)):
            r, colour = _FINE * radius, colours if one else colours[at]
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        return self

    def paths(self, paths: Any, colour: str = GREY, width: float = 0.6) -> Panel:
        """Lines through points, [n, steps, 2]."""
        for path in self._place(paths):
            self._draw.line([tuple(p) for p in path], fill=colour, width=round(_FINE * width) or 1)
        return self

    def image(self) -> Image.Image:
        """The picture with its title."""
        out = Image.new("RGB", (self.size, self.size + 18), "white")
        out.paste(self._image.resize((self.size, self.size), Image.Resampling.LANCZOS), (0, 18))
        ImageDraw.Draw(out).text((4, 3), self.title, fill="black")
        return out


def side_by_side(images: Sequence[Image.Image], path: str | Path) -> None:
    """One picture of several in a row, as PNG or JPEG by the name."""
    width = sum(image.width for image in images) + 6 * (len(images) - 1)
    out = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        out.paste(image, (left, 0))
        left += image.width + 6
    if Path(path).suffix == ".png":  # few colours: a third of the size
        out = out.quantize(64, dither=Image.Dither.NONE)
    out.save(path, optimize=True)

# SPDX-License-Identifier: Apache-2.0
"""A photograph in dots: python examples/stippling.py [PICTURE].

Each dot stands for the same amount of ink: optimal transport from the darkness of the picture onto
the dots, which then move to the middle of what they stand for (de Goes et al., Blue noise through
optimal transport, 2012).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from drawing import Panel, side_by_side
from PIL import Image

import otcuda
from otcuda.transport import SemiDiscreteOT

BUNDLED = Path(otcuda.__file__).parent / "data" / "demo.jpg"


def darkness(path: str | Path, size: int = 256) -> np.ndarray:
    """How dark the middle of a picture is, [size, size], row 0 at the bottom, sum 1."""
    with Image.open(path) as photograph:
        side = min(photograph.size)
        left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
        square = photograph.convert("L").crop((left, top, left + side, top + side))
        grey = np.asarray(square.resize((size, size)), float)[::-1] / 255
    ink = (1 - grey) ** 2 + 0.01
    return ink / ink.sum()


def ink_of(ink: np.ndarray):
    """Sampler of points in the unit square as dense as the ink, for `SemiDiscreteOT`."""
    ends, size = np.cumsum(ink.ravel()), ink.shape[0]

    def sample(n: int, seed: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(key=seed))
        pixel = np.minimum(np.searchsorted(ends, random.random(n)), ink.size - 1)
        place = np.stack([pixel % size, pixel // size], 1) + random.random((n, 2))
        return (place / size).astype(np.float32)

    return sample


def stipple(ink: np.ndarray, dots: int, rounds: int) -> np.ndarray:
    """Dots [n, 2], each with the same share of the ink."""
    sample = ink_of(ink)
    y = sample(dots, seed=1)
    for number in range(rounds):
        ot = SemiDiscreteOT(y, source=sample)
        ot.fit("asgd", chi2=0.03, max_samples=800 * dots, seed=number)
        x = sample(64 * dots, seed=1000 + number)
        index = ot.assign(x)
        hits = np.maximum(np.bincount(index, minlength=dots), 1)
        middle = np.stack([np.bincount(index, x[:, d], dots) / hits for d in (0, 1)], 1)
        y = np.where((hits > 1)[:, None], middle, y).astype(np.float32)
    return y


def unevenness(y: np.ndarray, ink: np.ndarray) -> float:
    """Spread over mean of the distance to the next dot in units of the dots' local distance.

    0.52 for independent dots, 0 for a lattice.
    """
    near = np.array([np.sort(((y - each) ** 2).sum(1))[1] for each in y]) ** 0.5
    size = ink.shape[0]
    place = np.clip((y * size).astype(int), 0, size - 1)
    near = near * np.sqrt(ink[place[:, 1], place[:, 0]])
    return float(near.std() / near.mean())


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="stippling by optimal transport")
    parser.add_argument("picture", nargs="?", default=str(BUNDLED))
    parser.add_argument("--dots", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", default="stippling.png")
    options = parser.parse_args(arguments)
    ink = darkness(options.picture)
    y = stipple(ink, options.dots, options.rounds)
    first = ink_of(ink)(options.dots, seed=1)
    found = {"unevenness": [unevenness(first, ink), unevenness(y, ink)]}
    print(f"unevenness {found['unevenness'][0]:.2f} -> {found['unevenness'][1]:.2f}")
    radius = 300 * 0.3 / options.dots**0.5
    panels = [
        Panel(0, 1, 300, title).dots(dots, "black", radius).image()
        for title, dots in (("independent dots", first), ("balanced dots", y))
    ]
    grey = 255 - 255 * np.sqrt((ink - ink.min()) / np.ptp(ink))[::-1]
    photograph = Panel(0, 1, 300, "photograph").image()
    photograph.paste(Image.fromarray(grey.astype(np.uint8)).resize((300, 300)), (0, 18))
    side_by_side([photograph, *panels], options.output)
    return found


if __name__ == "__main__":
    main()

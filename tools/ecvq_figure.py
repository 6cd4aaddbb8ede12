# SPDX-License-Identifier: Apache-2.0
"""Figure and tables of docs/codec.md: python tools/ecvq_figure.py, under a minute on one core."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "docs" / "img" / "ecvq.png"
EDGE, SPAN = 360, 4.0  # pixels of a panel, and the half width that it shows
CODES, SAMPLES, STARTS = 32, 20_000, 5
ROUNDS = 6  # of moving codes and heights in turn


def main() -> None:
    """Draw the cells of three rules on one source, and print the tables."""
    sys.path.insert(0, str(ROOT))
    from otcuda.codec.quantiser import balanced_heights, fit_ecvq, nearest_heights

    rng = np.random.default_rng(0)
    train, held_out = (rng.laplace(size=(SAMPLES, 2)).astype(np.float32) for _ in range(2))
    y = train[:CODES].copy()
    plain = fit_ecvq(train, y, 0.0, 200)
    ecvq = fit_ecvq(train, y, 0.3, 400)
    panels = [
        ("nearest", plain.y, nearest_heights(plain.y)),
        ("balanced", plain.y, balanced_heights(plain.y, train, chi2=1e-3)),
        ("ecvq, lambda 0.3", ecvq.y, ecvq.heights),
    ]
    sheet = Image.new("RGB", (3 * EDGE + 40, EDGE + 40), (255, 255, 255))
    print("| rule | codes | error | entropy of the index | of log2 K |\n|---|--:|--:|--:|--:|")
    for k, (name, codes, heights) in enumerate(panels):
        sheet.paste(_cells(codes, heights), (k * (EDGE + 20), 40))
        font = ImageFont.load_default(size=18)
        ImageDraw.Draw(sheet).text((k * (EDGE + 20), 8), name, (20, 20, 20), font)
        error, entropy = _measured(held_out, codes, heights)
        share = entropy / np.log2(len(codes))
        print(f"| {name} | {len(codes)} | {error:.3f} | {entropy:.2f} bit | {share:.3f} |")
    sheet.quantize(64).save(FIGURE, optimize=True)
    _identity(train, ecvq)
    _dead_codes(train, held_out)


def _assign(x: np.ndarray, y: np.ndarray, heights: np.ndarray) -> np.ndarray:
    import otcuda

    return otcuda.power_argmax(x, y, np.asarray(heights, np.float32))[1]


def _measured(x: np.ndarray, y: np.ndarray, heights: np.ndarray) -> tuple[float, float]:
    """Mean squared error, and entropy of the index in bits."""
    index = _assign(x, y, heights)
    share = np.bincount(index, minlength=len(y)) / len(x)
    used = share[share > 0]
    return float(np.square(x - y[index]).sum(1).mean()), float(-(used * np.log2(used)).sum())


def _cells(y: np.ndarray, heights: np.ndarray) -> Image.Image:
    """The power diagram, a colour a cell, its codes as dots."""
    axis = np.linspace(-SPAN, SPAN, EDGE, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    colours = np.random.default_rng(1).integers(120, 256, (len(y), 3), np.uint8)
    panel = Image.fromarray(colours[_assign(grid, y, heights)].reshape(EDGE, EDGE, 3))
    draw = ImageDraw.Draw(panel)
    for a, b in (y + SPAN) * (EDGE / (2 * SPAN)):
        draw.ellipse((a - 2, b - 2, a + 2, b + 2), (20, 20, 20))
    return panel


def _identity(x: np.ndarray, ecvq) -> None:
    """Optimal transport onto the masses of ECVQ gives its cells back."""
    from otcuda.transport import SemiDiscreteOT

    index = _assign(x, ecvq.y, ecvq.heights)
    mass = np.bincount(index, minlength=len(ecvq.y)) / len(x)
    ot = SemiDiscreteOT(ecvq.y, nu=mass, source=x)
    for chi2 in (1e-3, 1e-4, 1e-5):
        ot.fit(seed=1, chi2=chi2, max_samples=50_000_000)
        print(f"equal indices at chi2 {chi2:g}: {(ot.assign(x) == index).mean():.5f}")


def _dead_codes(train: np.ndarray, held_out: np.ndarray) -> None:
    """Codebooks from bad starts: all codes within about 0.001 of one sample."""
    print("\n| rule | dead codes of 32 | entropy of log2 K | error |\n|---|--:|--:|--:|")
    for rule in ("nearest", "nearest, dead codes restarted", "balanced"):
        rows = []
        for start in range(STARTS):
            rng = np.random.default_rng(start)
            y = train[start] + rng.normal(0, 1e-3, (CODES, 2))
            y, heights = _trained(train, y.astype(np.float32), rule, rng)
            index = _assign(held_out, y, heights)
            error, entropy = _measured(held_out, y, heights)
            dead = CODES - len(np.unique(index))
            rows.append((dead, entropy / np.log2(CODES), error))
        dead, share, error = np.array(rows).T
        print(
            f"| {rule} | {', '.join(str(int(n)) for n in dead)} | {share.min():.3f} to "
            f"{share.max():.3f} | {error.min():.3f} to {error.max():.3f} |"
        )


def _trained(x: np.ndarray, y: np.ndarray, rule: str, rng) -> tuple[np.ndarray, np.ndarray]:
    """Codes and heights after `ROUNDS` of assigning and taking means."""
    from otcuda.codec.quantiser import balanced_heights, nearest_heights

    def heights_of(y: np.ndarray) -> np.ndarray:
        return balanced_heights(y, x, chi2=3e-3) if rule == "balanced" else nearest_heights(y)

    for _ in range(ROUNDS):
        index = _assign(x, y, heights_of(y))
        counts = np.bincount(index, minlength=len(y))
        sums = np.stack([np.bincount(index, x[:, d], len(y)) for d in range(2)], 1)
        means = sums / np.maximum(counts, 1)[:, None]
        y = np.where(counts[:, None] > 0, means, y).astype(np.float32)
        dead = np.flatnonzero(counts == 0)
        if "restarted" in rule:
            y[dead] = x[rng.choice(len(x), len(dead))]
    return y, heights_of(y)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Curves over rate: otcuda and Pillow's codecs at constant settings, and files of others' figures.

    python benchmarks/rates.py kodak --data DIR [--others summary.csv] [--codecs otcuda webp]

Writes results/rates.json and docs/img/rates.png. `--others` takes a CSV of means over the same
pictures (codec, convention, setting, pictures, mean_bpp, psnr, ms_ssim): rows `sweep` are drawn.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import harness
import numpy as np
from codec import one_thread, rivals

from otcuda._io import atomic_write
from otcuda.evaluation import CODECS, Curve, bd_rate, find_pictures, ms_ssim, psnr

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "rates.png"
RANGES = ((0.02, 0.1), (0.1, 0.3), (0.3, 1.0))
PACKAGES = ("otcuda", "numpy", "pillow", "scipy")


def measured(codec: Any, images: list[Any], points: int) -> list[dict[str, Any]]:
    """Means of a codec at settings spread over its scale."""
    found = []
    for setting in np.unique(np.linspace(0, codec.finest, points).round().astype(int)).tolist():
        rows = []
        for image in images:
            blob = codec.encode(image, setting)
            decoded = codec.decode(blob)
            bpp = 8 * len(blob) / (image.shape[0] * image.shape[1])
            rows.append((bpp, psnr(image, decoded), ms_ssim(image, decoded)))
        bpp, quality, similarity = np.mean(rows, 0).tolist()
        found.append({"setting": codec.label(setting), "bpp": bpp, "psnr": quality})
        found[-1]["ms_ssim"] = similarity
        print(f"{codec.name:10s} {codec.label(setting):14s} {bpp:.4f} bpp {quality:.2f} dB")
    return found


def taken_over(path: Path, pictures: int, known: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows `sweep` of a CSV over as many pictures, of codecs not measured here."""
    curves: dict[str, list[dict[str, Any]]] = {}
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["convention"] != "sweep" or int(row["pictures"]) != pictures:
                continue
            if row["codec"] in known:
                continue
            point = {"setting": row["setting"], "bpp": float(row["mean_bpp"])}
            point["psnr"] = float(row["psnr"])
            point["ms_ssim"] = float(row["ms_ssim"]) if row["ms_ssim"] else None
            curves.setdefault(row["codec"], []).append(point)
    return curves


def curve(name: str, points: list[dict[str, Any]]) -> Curve:
    """PSNR over rate, points that do not rise in both left out."""
    kept: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: p["bpp"]):
        if not kept or (point["bpp"] > kept[-1]["bpp"] and point["psnr"] > kept[-1]["psnr"]):
            kept.append(point)
    return Curve(name, [p["bpp"] for p in kept], [p["psnr"] for p in kept])


def differences(curves: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """BD-rate of our curve against each other one, over ranges of the rate."""
    ours, found = curve("otcuda", curves["otcuda"]), []
    for name, points in curves.items():
        if name == "otcuda" or len(points) < 4:
            continue
        anchor = curve(name, points)
        for low, high in RANGES:
            value = bd_rate(ours, anchor, low, high)
            found.append({"anchor": name, "from": low, "to": high, "bd_rate": value})
    return found


def draw(curves: dict[str, list[dict[str, Any]]], title: str, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), dpi=110)
    for name, points in curves.items():
        ordered = sorted(points, key=lambda p: p["bpp"])
        bold = {"linewidth": 2.5, "color": "black", "zorder": 3} if name == "otcuda" else {}
        rates = [p["bpp"] for p in ordered]
        axes.plot(rates, [p["psnr"] for p in ordered], marker=".", label=name, **bold)
    axes.set_xscale("log")
    ticks = [0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("bits a pixel, mean")
    axes.set_ylabel("PSNR, dB, mean")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", help="a data set or a folder")
    parser.add_argument("--data", help="folder of the named set")
    parser.add_argument("--codecs", nargs="+", default=["otcuda", *CODECS])
    parser.add_argument("--points", type=int, default=13, help="settings of each codec")
    parser.add_argument("--others", type=Path, help="CSV of means over the same pictures")
    parser.add_argument("-o", "--output", type=Path, default=harness.RESULTS / "rates.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    one_thread()
    found = find_pictures(given.pictures, given.data)
    images = [picture.read() for picture in found.pictures]
    curves = {
        name: measured(codec, images, given.points) for name, codec in rivals(given.codecs).items()
    }
    others = taken_over(given.others, len(images), set(curves)) if given.others else {}
    whole = {**curves, **others}
    written = {"pictures": f"{given.pictures}, {len(images)} pictures"}
    written |= harness.environment(PACKAGES)
    written["taken_over"] = sorted(others)
    written["curves"] = whole
    written["bd_rate"] = differences(whole) if "otcuda" in whole else []
    atomic_write(given.output, (json.dumps(written, indent=1, allow_nan=False) + "\n").encode())
    draw(whole, written["pictures"], given.picture)
    print(f"wrote {given.output} and {given.picture}", file=sys.stderr)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Writes the result tables of README.md from the JSON under benchmarks/results.

    python tools/readme_tables.py

`benchmarks/results/kodak.json` is what `otcuda eval kodak --json` printed, with `realism` 0 and 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TITLES = {
    "filled": "Each picture filled to its bytes",
    "constant": "One setting for all pictures, mean rate within the target",
}
COLUMNS = {
    "bytes": ("bytes", "{:,.0f}"),
    "bpp": ("bpp", "{:.4f}"),
    "psnr": ("PSNR", "{:.2f}"),
    "ms_ssim": ("MS-SSIM", "{:.4f}"),
    "lpips_alex": ("LPIPS-alex", "{:.3f}"),
    "dists": ("DISTS", "{:.3f}"),
    "encode_ms": ("encode ms", "{:.0f}"),
    "decode_ms": ("decode ms", "{:.0f}"),
}


def codec_table() -> str | None:
    """Codecs on Kodak under both conventions, or None where nothing is recorded."""
    path = RESULTS / "kodak.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    target = found["target_bpp"]
    lines = [f"Kodak, {target:.4g} bit per pixel; mean of the pictures' own values.", ""]
    for convention, title in TITLES.items():
        means = [m for m in found["means"] if m["convention"] == convention]
        shown = [name for name in COLUMNS if any(m[name] is not None for m in means)]
        lines += [f"{title}:", ""]
        lines.append("| codec | " + " | ".join(COLUMNS[name][0] for name in shown) + " | fits |")
        lines.append("|---" * (len(shown) + 2) + "|")
        for mean in means:
            cells = ["" if mean[n] is None else COLUMNS[n][1].format(mean[n]) for n in shown]
            total = mean["pictures"] + len(mean["not_reached"])
            fits = f"{mean['pictures']}/{total}" if mean["reached"] or total else "no"
            if convention == "constant" and not mean["reached"]:
                fits = "over the target"
            lines.append(f"| {mean['codec']} | " + " | ".join(cells) + f" | {fits} |")
        lines.append("")
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v)
    return "\n".join(lines) + f"Made by `otcuda eval kodak --json`; {versions}."


TABLES: dict[str, Callable[[], str | None]] = {"codec": codec_table}


def with_tables(text: str) -> str:
    """README.md with its tables as the recorded results say."""
    for name, table in TABLES.items():
        content = table() or "No results are recorded yet."
        pattern = rf"(<!-- begin {name}:[^\n]*\n).*?(<!-- end {name} -->)"
        text = re.sub(
            pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, count=1, flags=re.DOTALL
        )
    return text


def main() -> None:
    """Rewrite README.md."""
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text()))


if __name__ == "__main__":
    main()

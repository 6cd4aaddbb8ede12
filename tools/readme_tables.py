# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of README.md from the JSON under benchmarks/results, and its picture.

    python tools/readme_tables.py [otcuda-demo/side-by-side.png]

`kodak.json` is what `otcuda eval kodak --json` printed, with `realism` 0 and 1; the others come
from `make bench`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "img" / "side-by-side.jpg"
CONVENTIONS = {
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
KERNEL_CASES = r"^B=\d{3,} N=65536 D=(2|4|8|16|64|256)$"
CODER_CASES = r"n=(1000|1000000)$"
LEAST_POINTS = 5  # of a codec in the table of curves


def recorded(name: str) -> dict[str, Any] | None:
    """A file of benchmarks/results, None where there is none."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.is_file() else None


def rows_of(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = cells
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rest))


def made_by(found: dict[str, Any], command: str) -> str:
    """Where figures come from."""
    what = [f"Made by `{command}`"]
    if "cpu" in found:
        busy = "" if found.get("quiet", True) else ", with other work on the machine"
        what.append(f"one thread of {found['cpu']}, CPU time{busy}, commit {found['commit']}")
    what.append(", ".join(f"{k} {v}" for k, v in found["versions"].items() if v))
    return "; ".join(what) + "."


def codec_table() -> str | None:
    """Codecs on Kodak under both conventions."""
    found = recorded("kodak.json")
    if found is None:
        return None
    parts = [f"Kodak at {found['target_bpp']:.4g} bit per pixel; means of the pictures' values."]
    for convention, title in CONVENTIONS.items():
        means = [m for m in found["means"] if m["convention"] == convention]
        shown = [name for name in COLUMNS if any(m[name] is not None for m in means)]
        cells = [["codec", *(COLUMNS[name][0] for name in shown), "fits"]]
        for mean in means:
            figures = ["-" if mean[n] is None else COLUMNS[n][1].format(mean[n]) for n in shown]
            cells.append([mean["codec"], *figures, fits(mean)])
        parts += [f"{title}:", rows_of(cells)]
    return "\n\n".join([*parts, made_by(found, "otcuda eval kodak --json")])


def fits(mean: dict[str, Any]) -> str:
    """How many pictures a codec brings within their bytes, or whether its mean does."""
    if mean["convention"] == "constant":
        return "yes" if mean["reached"] else "no: its coarsest"
    return f"{mean['pictures']}/{mean['pictures'] + len(mean['not_reached'])}"


def rates_table(name: str, cases: str) -> str | None:
    """Rates of an op beside its rivals, from the harness's JSON."""
    found = recorded(f"{name}.x86_64.json")
    if found is None:
        return None
    named: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:  # of a case that is measured again beside others, the first
        named.setdefault(row["case"], row)
    rows = [row for case, row in named.items() if re.search(cases, case)]
    # a rival may say in its name how it was run: "torch 256xN"
    rivals = dict.fromkeys(rival.split()[0] for row in rows for rival in row["rates"])
    with_peak = any("peak" in row for row in rows)
    head = [rows[0]["unit"], *rivals, *(["of the FMA peak"] if with_peak else [])]
    cells = [head]
    for row in rows:
        best = {
            rival: max(r["median"] for n, r in row["rates"].items() if n.split()[0] == rival)
            for rival in rivals
            if any(n.split()[0] == rival for n in row["rates"])
        }
        share = [f"{row['rates']['otcuda']['of_peak']:.0%}"] if with_peak else []
        figures = [f"{best[r]:.1f}" if r in best else "-" for r in rivals]
        cells.append([row["case"], *figures, *share])
    return f"{rows_of(cells)}\n\n{made_by(found, f'python benchmarks/{name}.py')}"


def solver_table() -> str | None:
    """Seconds and chi2 of solvers on the same problems."""
    found = recorded("semidiscrete.x86_64.json")
    if found is None:
        return None
    rivals = list(found["rows"][0]["rivals"])
    cells = [["chi2 (after seconds)", *rivals]]
    for row in found["rows"]:
        figures = [row["rivals"][r] for r in rivals]
        cells.append([row["case"], *(f"{f['chi2']:.3g} ({f['seconds']:.2g} s)" for f in figures)])
    return f"{rows_of(cells)}\n\n{made_by(found, 'python benchmarks/semidiscrete.py')}"


def curves_table() -> str | None:
    """PSNR at a few rates, between the measured settings, and BD-rates of our curve."""
    from otcuda.evaluation import Curve

    found = recorded("rates.json")
    if found is None:
        return None
    rates = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8)
    spans = list(dict.fromkeys((d["from"], d["to"]) for d in found["bd_rate"]))
    value = {(d["anchor"], d["from"], d["to"]): d["bd_rate"] for d in found["bd_rate"]}
    ours = (f"our rate, {low:g} to {high:g}" for low, high in spans)
    cells = [["PSNR at bpp", *(f"{rate:g}" for rate in rates), *ours]]
    for name, points in found["curves"].items():
        # Two settings of one rate, at a codec's limits, are one point.
        ordered = sorted({p["bpp"]: p for p in points}.values(), key=lambda p: p["bpp"])
        if len(ordered) < LEAST_POINTS:
            continue
        curve = Curve(name, [p["bpp"] for p in ordered], [p["psnr"] for p in ordered])
        at = (curve.at(rate) for rate in rates)
        against = (value.get((name, *span)) for span in spans)
        row = [name, *("-" if q is None else f"{q:.2f}" for q in at)]
        cells.append([*row, *("-" if d is None else f"{d:+.0%}" for d in against)])
    who = f"{found['pictures']}; commit {found['commit']}"
    taken = f"; from a file of figures: {', '.join(found['taken_over'])}"
    last = f"Made by `python benchmarks/rates.py`: {who}{taken if found['taken_over'] else ''}."
    return f"{rows_of(cells)}\n\n{last}"


TABLES: dict[str, Callable[[], str | None]] = {
    "codec": codec_table,
    "rates": curves_table,
    "kernel": lambda: rates_table("power_argmax", KERNEL_CASES),
    "solver": solver_table,
    "coder": lambda: rates_table("range64", CODER_CASES),
    "lanes": lambda: rates_table("rans32", CODER_CASES),
}


def with_tables(text: str) -> str:
    """README.md with its tables as the recorded results say."""
    for name, table in TABLES.items():
        content = table() or "Nothing is recorded yet."
        pattern = rf"(<!-- begin {name}:[^\n]*\n).*?(<!-- end {name} -->)"
        text = re.sub(
            pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, count=1, flags=re.DOTALL
        )
    return text


def main() -> None:
    """Rewrite README.md, and its picture where one is given."""
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text()))
    if len(sys.argv) > 1:
        from PIL import Image

        PICTURE.parent.mkdir(exist_ok=True)
        with Image.open(sys.argv[1]) as image:
            image.convert("RGB").save(PICTURE, quality=88, optimize=True)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Codecs side by side on a set of pictures: rows, means, JSON and a plain table.

The two conventions of choosing a quality (`baselines`) are separate runs with separate means.
`eval.schema.json` beside this file describes the JSON.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
CONVENTIONS = ("filled", "constant")
METRICS = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "dists")


@dataclass(frozen=True)
class Row:
    """One picture through one codec; a metric is None where it was not or cannot be computed.

    Attributes:
        bytes: length of the whole file.
        bpp: bits of the file over height x width.
        psnr: decibel, `inf` for an exact copy.
        encode_ms: wall milliseconds; in the convention "filled" of the whole search.
        decode_ms: wall milliseconds.
    """

    codec: str
    convention: str
    file: str
    setting: str
    bytes: int
    bpp: float
    width: int
    height: int
    encode_ms: float
    decode_ms: float
    psnr: float
    ms_ssim: float | None = None
    lpips_alex: float | None = None
    lpips_vgg: float | None = None
    dists: float | None = None


@dataclass(frozen=True)
class Mean:
    """One codec under one convention: the mean of its rows, picture by picture.

    Attributes:
        target_bpp: what was asked for.
        setting: the common setting in the convention "constant".
        pictures: number of rows behind the means; a metric's mean is over the rows that have it.
        reached: False where the codec cannot go as low on these pictures: in "constant" the rows
            are then of its coarsest setting, in "filled" the pictures of `not_reached` are absent.
        not_reached: pictures whose budget is below the codec's coarsest file.
    """

    codec: str
    convention: str
    target_bpp: float
    setting: str | None
    pictures: int
    reached: bool
    not_reached: tuple[str, ...]
    bytes: float | None
    bpp: float | None
    encode_ms: float | None
    decode_ms: float | None
    psnr: float | None
    ms_ssim: float | None
    lpips_alex: float | None
    lpips_vgg: float | None
    dists: float | None


@dataclass(frozen=True)
class Fault:
    """A picture that was left out, or a codec that failed on one, and why."""

    file: str
    reason: str
    codec: str | None = None
    convention: str | None = None


@dataclass
class Evaluation:
    """What `evaluate` measured."""

    name: str
    target_bpp: float
    budget_bytes: int | None = None
    quality: int | None = None
    notes: list[str] = field(default_factory=list)
    means: list[Mean] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    failures: list[Fault] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def mean(self, codec: str, convention: str) -> Mean:
        """The means of one codec under one convention; KeyError where it was not run."""
        for mean in self.means:
            if (mean.codec, mean.convention) == (codec, convention):
                return mean
        raise KeyError(f"{codec}, {convention}")

    def to_json(self) -> dict[str, Any]:
        """As plain values that `json.dumps` writes; an infinite PSNR becomes None."""
        return {"schema": SCHEMA, "kind": "evaluation", **_plain(dataclasses.asdict(self))}

    def to_compressai(self, codec: str, convention: str) -> dict[str, Any]:
        """One codec under one convention in the JSON shape of CompressAI's `eval_model`."""
        mean = self.mean(codec, convention)
        return {
            "name": codec,
            "description": f"{self.name}, {convention}, mean of per-picture RGB values",
            "results": {
                "psnr": [_plain(mean.psnr)],
                "ms-ssim": [mean.ms_ssim],
                "bpp": [mean.bpp],
                "encoding_time": [mean.encode_ms and mean.encode_ms / 1000],
                "decoding_time": [mean.decode_ms and mean.decode_ms / 1000],
            },
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_COLUMNS = {
    "bytes": ("bytes", "{:.0f}"),
    "bpp": ("bpp", "{:.4f}"),
    "psnr": ("PSNR", "{:.2f}"),
    "ms_ssim": ("MS-SSIM", "{:.4f}"),
    "lpips_alex": ("LPIPS-alex", "{:.4f}"),
    "lpips_vgg": ("LPIPS-vgg", "{:.4f}"),
    "dists": ("DISTS", "{:.4f}"),
    "encode_ms": ("enc ms", "{:.0f}"),
    "decode_ms": ("dec ms", "{:.0f}"),
}
_TITLES = {
    "filled": "filled: each picture the best file within its bytes",
    "constant": "constant: one setting for all pictures, mean rate within the target",
}


def table(evaluation: Evaluation) -> str:
    """The means as plain text, one block a convention, and what was left out and why."""
    total = len({row.file for row in evaluation.rows} | _unreached(evaluation))
    lines = [f"{evaluation.name}: {total} pictures, at most {_target(evaluation)}"]
    for convention in CONVENTIONS:
        means = [mean for mean in evaluation.means if mean.convention == convention]
        if means:
            lines += ["", _TITLES[convention], *_block(means, convention)]
    lines += [f"note: {note}" for note in evaluation.notes]
    lines += [f"skipped {_one_line(f.file)}: {f.reason}" for f in evaluation.skipped]
    lines += [
        f"failed {f.codec}, {f.convention}, {_one_line(f.file)}: {f.reason}"
        for f in evaluation.failures
    ]
    return "\n".join(lines) + "\n"


def _unreached(evaluation: Evaluation) -> set[str]:
    return {file for mean in evaluation.means for file in mean.not_reached}


def _target(evaluation: Evaluation) -> str:
    if evaluation.budget_bytes is not None:
        return f"{evaluation.budget_bytes} bytes each"
    source = " (what the first codec took)" if evaluation.quality is not None else ""
    return f"{evaluation.target_bpp:.4g} bit per pixel{source}"


def _block(means: list[Mean], convention: str) -> list[str]:
    names = [n for n in _COLUMNS if any(getattr(mean, n) is not None for mean in means)]
    last = "fits" if convention == "filled" else "setting"
    cells = [["codec", *(_COLUMNS[n][0] for n in names), last]]
    for mean in means:
        values = [(_COLUMNS[n][1], getattr(mean, n)) for n in names]
        figures = ["-" if value is None else form.format(value) for form, value in values]
        cells.append([mean.codec, *figures, _remark(mean)])
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    return [
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{c:>{w}}" for c, w in zip(row[1:-1], widths[1:-1], strict=True))
        + f"  {row[-1]}"
        for row in cells
    ]


def _remark(mean: Mean) -> str:
    if mean.convention == "filled":
        return f"{mean.pictures}/{mean.pictures + len(mean.not_reached)}"
    if mean.setting is None:
        return "failed"
    return mean.setting if mean.reached else f"{mean.setting}, its coarsest: over the target"


def _one_line(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name

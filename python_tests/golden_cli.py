# SPDX-License-Identifier: Apache-2.0
"""What python_tests/golden/ says of the command line: every help page, and what errors say."""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

import mosaic
from cli_runner import photograph, png, run

from otcuda import codec
from otcuda.cli import cli

# name -> arguments, in a folder that `_prepare` filled
ERRORS = {
    "no such file": ["compress", "none.png"],
    "not a picture": ["compress", "text.png"],
    "not an otc file": ["decompress", "text.png", "-o", "x.png"],
    "cut off": ["info", "cut.otc"],
    "unknown version": ["decompress", "later.otc"],
    "other model": ["decompress", "--model", "weights", "photo.otc", "-o", "x.png"],
    "no weights": ["decompress", "--model", "none", "photo.otc", "-o", "x.png"],
    "exists already": ["compress", "photo.png"],
    "budget": ["compress", "photo.png", "-f", "--bytes", "5"],
    "two budgets": ["compress", "photo.png", "--bytes", "5", "--bpp", "1"],
    "bytes of zero": ["compress", "photo.png", "--bytes", "0"],
    "folder without output": ["compress", "."],
    "folder onto a file": ["compress", ".", "-o", "photo.png"],
    "folder without pictures": ["compress", "empty", "-o", "out"],
    "pipe among files": ["compress", "-", "photo.png", "-o", "out"],
    "json and picture": ["compress", "photo.png", "-o", "-", "--json"],
    "unknown format": ["decompress", "photo.otc", "-o", "x.docx"],
    "bad shard": ["compress", ".", "-o", "out", "--shard", "2/2"],
    "unknown verb": ["compres", "photo.png"],
    "unknown option": ["compress", "photo.png", "--byte", "7"],
    "unknown codec": ["eval", "photo.png", "--codec", "gif"],
    "unknown set": ["eval", "kodac"],
    "train without pictures": ["train", "run"],
    "unknown stage": ["train", "run", "--data", ".", "--stage", "all-of-it"],
    "unknown setting": [
        *("train", "run", "--data", ".", "--stage", "autoencoder", "--set", "stepz=3")
    ],
    "setting of a wrong type": [
        *("train", "run", "--data", ".", "--stage", "autoencoder", "--set", "steps=many")
    ],
}


def golden() -> dict[str, str]:
    """Name and text of each file."""
    before, here = {name: vars(codec).pop(name, None) for name in mosaic.NAMES}, Path.cwd()
    mosaic.install()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            errors = {name: failure(name) for name in ERRORS}
            os.chdir(here)
        pages = help_pages()
    finally:  # tests of the real codec may follow in this process
        for name, value in before.items():
            del vars(codec)[name]
            if value is not None:
                setattr(codec, name, value)
    return {"cli_help_v1.txt": pages, "cli_errors_v1.json": json.dumps(errors, indent=1) + "\n"}


def help_pages() -> str:
    """Every help page under a line that says which click laid them out."""
    version = ".".join(importlib.metadata.version("click").split(".")[:2])
    names = ["", *cli.commands]
    pages = [run(*filter(None, (name,)), "--help").out.decode() for name in names]
    return f"click {version}\n" + "\n\n".join(pages)


def failure(name: str) -> dict[str, object]:
    """Exit code and stderr of one of `ERRORS`, in the current folder."""
    _prepare(Path())
    result = run(*ERRORS[name])
    assert result.out == b""
    return {"code": result.code, "stderr": result.err.splitlines()}


def _prepare(folder: Path) -> None:
    pixels = photograph()
    (folder / "photo.png").write_bytes(png(pixels))
    (folder / "text.png").write_text("no picture")
    data = mosaic.compress(pixels, bytes=99)
    (folder / "photo.otc").write_bytes(data)
    (folder / "cut.otc").write_bytes(data[:7])
    (folder / "later.otc").write_bytes(bytes([data[0] + 1]) + data[1:])
    (folder / "weights").touch()
    (folder / "empty").mkdir(exist_ok=True)

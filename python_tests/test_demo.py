# SPDX-License-Identifier: Apache-2.0
"""The demo: its files are there, its figures are those of the files, its table shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import photograph, png, run
from json_schema import violations
from PIL import Image

from otcuda import batch, demo
from otcuda.evaluation.metrics import ms_ssim, psnr

SCHEMA = json.loads((Path(batch.__file__).parent / "data" / "cli.schema.json").read_text())

pytestmark = pytest.mark.usefixtures("mosaic")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    import mosaic

    from otcuda import codec

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        for name in mosaic.NAMES:
            patch.setitem(vars(codec), name, getattr(mosaic, name))
        result = run("demo", "--json")
        assert result.code == 0
        told = json.loads(result.out)
        told["files"] = [str(Path(name).absolute()) for name in told["files"]]
        return told


def test_files_and_figures(shown, mosaic):
    assert violations(shown, SCHEMA["$defs"]["demo"], SCHEMA) == []
    coded, picture, sheet = map(Path, shown["files"])
    assert [p.parent.name for p in (coded, picture, sheet)] == ["otcuda-demo"] * 3
    data = coded.read_bytes()
    assert len(data) <= shown["budget"] == 1474
    decoded = np.asarray(Image.open(picture))
    assert np.array_equal(decoded, mosaic.decompress(data))
    original, ours, rival = shown["panels"]
    pixels = demo._bundled()
    assert (original["name"], original["bytes"]) == ("original", pixels.size)
    assert ours["bytes"] == len(data)
    assert ours["bpp"] == 8 * len(data) / (768 * 512)
    assert ours["psnr"] == psnr(pixels, decoded)
    assert ours["ms_ssim"] == ms_ssim(pixels, decoded)
    assert rival["name"] == "JPEG 2000"
    assert 0.8 * len(data) < rival["bytes"] <= len(data)
    assert 15 < rival["psnr"] < 40
    with Image.open(sheet) as image:
        three = np.asarray(image)
    assert three.shape == (512 + demo.LABEL_HEIGHT, 3 * 768 + 16, 3)
    assert np.array_equal(three[demo.LABEL_HEIGHT :, :768], pixels)
    assert np.array_equal(three[demo.LABEL_HEIGHT :, 776:1544], decoded)
    for left in (0, 776, 1552):  # each has a label
        assert (three[: demo.LABEL_HEIGHT, left : left + 300] < 100).any()


def test_report(shown):
    text = demo.report(shown)
    for panel in shown["panels"][1:]:
        assert f"{panel['bytes']:,}" in text
        assert f"{panel['psnr']:.2f}" in text
        assert f"{panel['ms_ssim']:.4f}" in text
    for step, ms in shown["ms"].items():
        assert f"{step} {ms:.0f} ms" in text
    assert set(shown["ms"]) == set(demo.STEPS)
    after = text.partition("next:\n")[2].splitlines()
    assert len(after) == 3
    assert all(line.startswith("  otcuda ") for line in after)
    assert max(map(len, text.splitlines())) <= 130


def test_any_picture_and_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.png").write_bytes(png(photograph(200, 170)))
    result = run("demo", "--picture", "mine.png", "--bpp", "0.5", "-o", "shown", "--json")
    told = json.loads(result.out)
    assert told["budget"] == int(0.5 * 200 * 170 / 8)
    assert 0.8 * told["budget"] < Path("shown/demo.otc").stat().st_size <= told["budget"]
    assert run("demo", "--picture", "mine.png", "--bpp", "0.0001").code == 4


def test_without_a_rival_two_panels_remain(tmp_path, monkeypatch):
    """JPEG 2000 cannot go as low as the mosaic on a small picture."""
    monkeypatch.chdir(tmp_path)
    Path("small.png").write_bytes(png(photograph(40, 30)))
    result = run("demo", "--picture", "small.png", "--bpp", "0.2", "--json")
    told = json.loads(result.out)
    assert [panel["name"] for panel in told["panels"]] == ["original", "otcuda"]
    assert told["panels"][1]["ms_ssim"] is None
    assert "JPEG 2000" not in demo.report(told)

# SPDX-License-Identifier: Apache-2.0
"""Pillow's codecs: what fill and constant promise, and agreement with the measured baselines.

Those are not shipped; set OTCUDA_DATA to a folder with `kodak` and `baselines` to run that test.
"""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import features

from otcuda.errors import ArgumentError, BackendError, BudgetError
from otcuda.evaluation import CODECS, constant, fill, ms_ssim, psnr, read_picture
from otcuda.evaluation.baselines import Encoded, Scale, bits_per_pixel, versions

BUILT = {"jpeg": "jpg", "jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}


@pytest.fixture(params=list(BUILT))
def codec(request):
    """Each codec in turn; skipped where this Pillow lacks it."""
    if BUILT[request.param] not in features.get_supported():
        pytest.skip(f"this Pillow was built without {request.param}")
    return CODECS[request.param]


@pytest.fixture(scope="module")
def photograph():
    """The bundled photograph at a quarter of its size, so that searches are quick."""
    with resources.as_file(resources.files("otcuda") / "data" / "demo.jpg") as path:
        full = read_picture(path)
    return full.reshape(128, 4, 192, 4, 3).mean((1, 3)).round().astype(np.uint8)


def test_codecs_are_known_by_name():
    assert list(CODECS) == list(BUILT)
    assert [codec.name for codec in CODECS.values()] == list(BUILT)
    assert set(versions()) == {"pillow", *BUILT}
    built = {name for name, library in BUILT.items() if library in features.get_supported()}
    assert {name for name, version in versions().items() if version} == {"pillow", *built}


def test_versions_of_a_pillow_without_avif(monkeypatch):
    supported = [name for name in features.get_supported() if name != "avif"]
    monkeypatch.setattr(features, "get_supported", lambda: supported)
    assert versions()["avif"] == ""
    assert versions()["jpeg"]


def test_finer_settings_take_more_and_look_better(codec, photograph):
    blobs = [codec.encode(photograph, s * codec.finest // 4) for s in (0, 2, 3)]
    sizes = [len(blob) for blob in blobs]
    assert sizes == sorted(set(sizes))
    quality = [psnr(photograph, codec.decode(blob)) for blob in blobs]
    assert quality == sorted(quality)
    assert quality[-1] > 30


def test_fill_is_the_finest_within_the_budget(codec, photograph):
    coarsest = len(codec.encode(photograph, 0))
    budget = 3 * coarsest
    encoded = fill(codec, photograph, budget)
    assert 0.8 * budget < len(encoded.blob) <= budget
    if codec.filled is None:
        setting = next(s for s in range(codec.finest) if codec.label(s) == encoded.setting)
        assert codec.encode(photograph, setting) == encoded.blob
        assert len(codec.encode(photograph, setting + 1)) > budget


def test_fill_says_what_the_coarsest_needs(codec, photograph):
    scale = codec.filled or codec.constant
    least = len(replace(codec, constant=scale).encode(photograph, 0))
    with pytest.raises(BudgetError, match=f"{codec.name} needs {least} bytes.*allowed are 20"):
        fill(codec, photograph, 20)
    assert len(fill(codec, photograph, least).blob) <= least


def test_fill_holds_any_codec_to_the_budget(photograph):
    class Liar:
        name = "liar"

        def fill(self, image, budget_bytes):
            return Encoded(bytes(budget_bytes + 1), "")

    with pytest.raises(BudgetError, match="liar wrote 101 bytes, allowed 100"):
        fill(Liar(), photograph, 100)


def test_jpeg2000_writes_a_bare_codestream(photograph):
    blob = fill(CODECS["jpeg2000"], photograph, 400).blob
    assert blob[:4] == b"\xff\x4f\xff\x51"
    blob = CODECS["jpeg2000"].encode(photograph, 100)
    assert blob[:4] == b"\xff\x4f\xff\x51"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (33, 5), (16, 16)])
def test_small_and_long_pictures_go_through(codec, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert codec.decode(codec.encode(image, codec.finest // 2)).shape == image.shape
    assert codec.decode(fill(codec, image, 100_000).blob).shape == image.shape


def test_constant_is_the_finest_whose_mean_is_within_the_target(photograph):
    codec = CODECS["jpeg"]
    pictures = [photograph, photograph[:128, :200]]  # of different rates and sizes

    def mean(setting):
        return np.mean([bits_per_pixel(len(codec.encode(x, setting)), x) for x in pictures])

    chosen = constant(codec, pictures, 0.5)
    assert chosen.reached
    assert chosen.bpp == pytest.approx(mean(chosen.setting))
    assert mean(chosen.setting) <= 0.5 < mean(chosen.setting + 1)
    assert constant(codec, pictures, 1e6).setting == codec.finest


def test_constant_out_of_reach_is_the_coarsest(photograph):
    chosen = constant(CODECS["webp"], [photograph], 0.001)
    assert (chosen.setting, chosen.reached) == (0, False)
    expected = bits_per_pixel(len(CODECS["webp"].encode(photograph, 0)), photograph)
    assert chosen.bpp == pytest.approx(expected)
    assert expected > 0.001


def test_bits_per_pixel_is_of_the_whole_file():
    assert bits_per_pixel(1474, np.zeros((512, 768, 3), np.uint8)) == 8 * 1474 / (512 * 768)


def test_bad_settings_and_pictures_are_named(photograph):
    for setting in (-1, 95):
        with pytest.raises(ArgumentError, match=f"jpeg has settings 0 to 94, got {setting}"):
            CODECS["jpeg"].encode(photograph, setting)
    wide = np.zeros((1, 16_384, 3), np.uint8)
    with pytest.raises(ArgumentError, match="webp cannot encode 16384x1 pixels"):
        CODECS["webp"].encode(wide, 0)


def test_a_format_that_is_not_built_in_is_named(photograph):
    absent = replace(CODECS["jpeg"], name="jxl", format="JPEGXL")
    with pytest.raises(BackendError, match="built without JPEGXL"):
        absent.encode(photograph, 0)


def test_scales_are_written_in_the_codec_s_words():
    assert CODECS["jpeg"].label(0) == "quality 1"
    assert CODECS["avif"].constant.options(7)["max_threads"] == 1  # the bytes depend on it
    assert CODECS["avif"].label(CODECS["avif"].finest) == "quality 100"
    assert CODECS["jpeg2000"].label(115) == "21.5 dB"
    rates: Scale = CODECS["jpeg2000"].filled
    assert rates.label(0) == "rate 65536.0"
    assert rates.options(rates.finest)["quality_layers"] == [1]


def measured(name, picture, **columns):
    """The row of the measured baselines with these columns, and the picture."""
    root = os.environ.get("OTCUDA_DATA")
    table = Path(root or "", "baselines", f"kodak_{name}.csv")
    path = Path(root or "", "kodak", f"{picture}.png")
    if not root or not table.is_file() or not path.is_file():
        pytest.skip(f"OTCUDA_DATA has no baselines/kodak_{name}.csv with kodak/{picture}.png")
    columns["picture"] = picture
    with table.open() as file:
        row = next(r for r in csv.DictReader(file) if columns.items() <= r.items())
    return row, read_picture(path)


@pytest.mark.parametrize("picture", ["kodim03", "kodim20"])
def test_filled_jpeg2000_is_that_of_the_baselines(picture):
    row, image = measured("jpeg2000", picture, convention="filled<=1474B")
    encoded = fill(CODECS["jpeg2000"], image, 1474)
    decoded = CODECS["jpeg2000"].decode(encoded.blob)
    assert len(encoded.blob) == pytest.approx(int(row["bytes"]), abs=8)
    assert psnr(image, decoded) == pytest.approx(float(row["psnr"]), abs=0.05)
    assert ms_ssim(image, decoded) == pytest.approx(float(row["ms_ssim"]), abs=0.003)


@pytest.mark.parametrize(
    ("name", "setting", "written"),
    [
        ("jpeg", 0, "quality 1"),
        ("jpeg2000", 115, "21.5 dB"),
        ("webp", 0, "quality 0"),
        ("avif", 0, "quality 0"),
    ],
)
def test_settings_are_those_of_the_baselines(name, setting, written):
    row, image = measured(name, "kodim23", setting=written)
    blob = CODECS[name].encode(image, setting)
    assert CODECS[name].label(setting) == written
    assert len(blob) == pytest.approx(int(row["bytes"]), rel=0.01)
    got = psnr(image, CODECS[name].decode(blob))
    assert got == pytest.approx(float(row["psnr"]), abs=0.05)

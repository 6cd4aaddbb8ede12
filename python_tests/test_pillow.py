# SPDX-License-Identifier: Apache-2.0
"""`.otc` as a format of Pillow: the head when opened, pixels when used, errors as Pillow's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from cli_runner import photograph
from PIL import Image, UnidentifiedImageError

import otcuda
import otcuda.pillow
from otcuda.codec import bitstream

pytestmark = pytest.mark.usefixtures("mosaic")


@pytest.fixture
def data(mosaic):
    return mosaic.compress(photograph(), bytes=300)


def head(width, height, grey=False):
    digest = bytes.fromhex("0123abcd")
    return bitstream.write_file(
        bitstream.Header(width, height, "coded", 2, grey, 7, digest), b"abc"
    )


def test_open_reads_the_head_and_load_decodes(data, mosaic, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(options)
        return mosaic.decompress(*arguments, **options)

    monkeypatch.setitem(vars(otcuda.codec), "decompress", counted)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode, calls) == ("OTC", (48, 32), "RGB", [])
        assert image.otc.payload_bytes == len(data) - image.otc.header_bytes
        assert np.array_equal(np.asarray(image), mosaic.decompress(data))
        image.load()
        assert len(calls) == 1


def test_realism_is_an_attribute(data, mosaic):
    image = Image.open(io.BytesIO(data))
    image.realism = 1.0
    assert np.array_equal(np.asarray(image), mosaic.decompress(data, realism=1.0))


def test_files_by_name_are_closed(data, tmp_path):
    path = tmp_path / "x.otc"
    path.write_bytes(data)
    image = Image.open(path)
    image.load()
    assert image.fp is None
    image.rotate(90).thumbnail((8, 8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_save(mode, tmp_path, mosaic):
    picture = Image.fromarray(photograph()).convert(mode)
    path = tmp_path / "x.otc"
    picture.save(path, bytes=200, effort=1)
    assert path.read_bytes() == mosaic.compress(np.asarray(picture), bytes=200)
    with Image.open(path) as image:
        assert image.mode == mode
        assert image.otc.grey == (mode == "L")
        assert np.asarray(image).shape == np.asarray(picture).shape


def test_save_says_what_it_does_not_take(tmp_path):
    picture = Image.fromarray(photograph())
    path = tmp_path / "x.otc"
    with pytest.raises(OSError, match="cannot write mode RGBA as OTC; convert to RGB or L"):
        picture.convert("RGBA").save(path)
    with pytest.raises(otcuda.ArgumentError, match="got speed"):
        picture.save(path, speed=3)
    with pytest.raises(otcuda.BudgetError):
        picture.save(path, bytes=3)
    assert not path.exists()


def test_bombs_go_off_before_anything_is_decoded(monkeypatch):
    monkeypatch.setitem(vars(otcuda.codec), "decompress", None)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(head(60_000, 60_000)))
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(head(10_000, 10_000)))


def test_damage(data, monkeypatch):
    for broken in (data[:4], bytes([data[0] + 1]) + data[1:], b"\xc1\xff" + data[2:], b"\xc1"):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(broken))
    other = data[:3] + b"\0\0\0\0" + data[7:]
    image = Image.open(io.BytesIO(other))
    with pytest.raises(OSError, match="written with model 00000000") as caught:
        image.load()
    assert isinstance(caught.value.__cause__, otcuda.ModelMismatchError)


def test_other_formats_still_open():
    file = io.BytesIO()
    Image.fromarray(photograph()).save(file, "PNG")
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert image.format == "PNG"


def test_register_may_be_called_again():
    otcuda.pillow.register()
    assert Image.registered_extensions()[".otc"] == "OTC"
    assert Image.MIME["OTC"] == "image/x-otc"

# SPDX-License-Identifier: Apache-2.0
"""Named sets and what is known of them; folders with every odd file; pictures turned upright."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from otcuda.errors import ArgumentError, CorruptDataError, LimitError
from otcuda.evaluation import DATASETS, datasets, evaluate, find_pictures, read_picture

NAMES = ["kodak", "clic2020", "clic2021", "raise1k", "div2k"]
NAMES += ["tecnick", "celeba", "mtfl", "imdb-wiki"]


def picture(height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def small_set(monkeypatch, tmp_path):
    """A set `tiny` of two files with digests, and its folder."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for k, name in enumerate(["a.png", "b.png"]):
        Image.fromarray(picture(seed=k)).save(folder / name)
    sha256 = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}
    known = replace(DATASETS["kodak"], counts={"all": 2}, sha256=sha256)
    monkeypatch.setitem(DATASETS, "tiny", known)
    return folder


def test_every_set_is_known_with_its_count():
    assert list(DATASETS) == NAMES
    first = {name: next(iter(known.counts.values())) for name, known in DATASETS.items()}
    assert first == dict(
        zip(NAMES, (24, 428, 60, 1000, 100, 100, 202_599, 12_995, 523_051), strict=True)
    )
    for known in DATASETS.values():
        assert known.title
        assert known.origin
    assert sum(DATASETS["celeba"].counts[s] for s in ("training", "validation", "test")) == 202_599


def test_kodak_has_24_digests():
    sha256 = DATASETS["kodak"].sha256
    assert list(sha256) == [f"kodim{k:02d}.png" for k in range(1, 25)]
    assert len(set(sha256.values())) == 24
    assert all(len(digest) == 64 for digest in sha256.values())


def test_the_real_kodak_pictures_are_accepted():
    root = os.environ.get("OTCUDA_DATA")
    if not root or not Path(root, "kodak").is_dir():
        pytest.skip("OTCUDA_DATA has no folder kodak")
    found = find_pictures("kodak")
    assert len(found.pictures) == 24
    assert not found.notes


def test_named_set_is_found_by_argument_and_by_environment(small_set, monkeypatch):
    monkeypatch.delenv("OTCUDA_DATA", raising=False)
    assert [p.name for p in find_pictures("tiny", small_set).pictures] == ["a.png", "b.png"]
    with pytest.raises(ArgumentError, match="by --data DIR, or by OTCUDA_DATA"):
        find_pictures("tiny")
    monkeypatch.setenv("OTCUDA_DATA", str(small_set.parent))
    found = find_pictures("tiny")
    assert found.name == "tiny"
    np.testing.assert_array_equal(found.pictures[1].read(), picture(seed=1))


def test_a_set_with_digests_takes_no_other_files(small_set):
    Image.fromarray(picture()).save(small_set / "c.png")
    assert [p.name for p in find_pictures("tiny", small_set).pictures] == ["a.png", "b.png"]
    Image.fromarray(picture(seed=9)).save(small_set / "b.png")
    with pytest.raises(ArgumentError, match=r"^b\.png in .* differ from the published tiny"):
        find_pictures("tiny", small_set)
    (small_set / "a.png").unlink()
    with pytest.raises(ArgumentError, match=r"^a\.png of the 2 files of tiny are missing"):
        find_pictures("tiny", small_set)


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (2, "2 pictures, as many as Kodak Lossless True Color Image Suite, test"),
        (1, "no published split of Kodak Lossless True Color Image Suite (test 2)"),
    ],
)
def test_a_set_without_digests_says_so(small_set, monkeypatch, count, says):
    monkeypatch.setitem(DATASETS, "tiny", replace(DATASETS["tiny"], sha256={}, counts={"test": 2}))
    for file in sorted(small_set.iterdir())[count:]:
        file.unlink()
    found = find_pictures("tiny", small_set)
    assert len(found.pictures) == count
    assert says in found.notes[0]
    assert "no digests are known" in found.notes[0]


def test_nothing_found_is_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="none of the sets kodak, clic2020"):
        find_pictures(tmp_path / "nowhere")
    (tmp_path / "README").write_text("no picture")
    with pytest.raises(ArgumentError, match="holds no picture"):
        find_pictures(tmp_path)
    with pytest.raises(ArgumentError, match="is not a folder"):
        find_pictures("kodak", tmp_path / "nowhere")


def test_of_a_folder_pipes_are_left_out_and_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
    Image.fromarray(picture()).save(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe.png")  # whoever opens it waits for ever
    (tmp_path / "link.png").symlink_to("nowhere.png")
    closed = tmp_path / "closed"
    closed.mkdir()
    real = os.scandir

    def scandir(path):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # tests run as root, who may all
    names = [p.name for p in find_pictures(tmp_path).pictures]
    assert names == ["closed", "link.png", "x.png"]
    with pytest.raises(PermissionError):
        find_pictures(closed)


def test_a_path_wins_over_no_name(tmp_path, monkeypatch):
    folder = tmp_path / "kodak"
    folder.mkdir()
    Image.fromarray(picture()).save(folder / "x.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTCUDA_DATA", raising=False)
    assert [p.name for p in find_pictures("./kodak").pictures] == ["x.png"]
    assert [p.name for p in find_pictures("kodak/x.png").pictures] == ["x.png"]


def test_pictures_are_upright(tmp_path):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.rot90(picture(), -1))


def test_every_mode_becomes_rgb(tmp_path):
    grey = (np.arange(24, dtype=np.uint16) * 2700).reshape(4, 6)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    expected = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2)
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png"), expected)

    rgba = np.dstack([picture(), np.full((4, 6), 255, np.uint8)])
    rgba[0, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    over_white = picture().copy()
    over_white[0] = 255
    np.testing.assert_array_equal(read_picture(tmp_path / "clear.png"), over_white)

    Image.fromarray(picture()).convert("P").save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "ink.jpg")
    Image.fromarray(picture()).convert("1").save(tmp_path / "bits.tif")
    frames = [Image.fromarray(picture(seed=k)) for k in range(3)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    for name in ("palette.png", "ink.jpg", "bits.tif", "film.png"):
        pixels = read_picture(tmp_path / name)
        assert (pixels.shape, pixels.dtype) == ((4, 6, 3), np.uint8), name
    np.testing.assert_array_equal(read_picture(tmp_path / "film.png"), picture())


def test_size_is_checked_before_decoding(tmp_path, monkeypatch):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    monkeypatch.setattr(datasets, "MAX_PIXELS", 24)
    assert read_picture(tmp_path / "a.png").shape == (4, 6, 3)
    monkeypatch.setattr(datasets, "MAX_PIXELS", 23)
    with pytest.raises(LimitError, match="6x4 pixels, over the limit of 23"):
        read_picture(tmp_path / "a.png")


def test_a_bomb_is_refused(tmp_path):
    header = b"P6 60000 60000 255\n"
    (tmp_path / "bomb.ppm").write_bytes(header + bytes(30))
    with pytest.raises(LimitError, match=r"bomb\.ppm"):
        read_picture(tmp_path / "bomb.ppm")


@pytest.fixture
def odd_folder(tmp_path):
    """Two good pictures among files that are none, or broken, or strangely named."""
    folder = tmp_path / "odd"
    (folder / "deeper").mkdir(parents=True)
    (folder / "folder.png").mkdir()
    Image.fromarray(picture(200, 180)).save(folder / "good.png")
    Image.fromarray(picture(1, 1)).save(folder / "deeper" / "one\npixel.JPG", "JPEG")
    Image.fromarray(picture(99, 99)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("hello")
    (folder / "empty.webp").write_bytes(b"")
    (folder / "lost.png").symlink_to("nowhere")
    (folder / ".hidden.png").write_text("left alone")
    (folder / "notes.txt").write_text("left alone")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_text("no UTF-8")
    return folder


def test_odd_files_are_named_and_skipped(odd_folder):
    found = find_pictures(odd_folder)
    names = {"good.png", "deeper/one\npixel.JPG"}
    broken = {"cut.jpg", "text.png", "empty.webp", "lost.png", "\\xff.png"}
    assert {p.name for p in found.pictures} == names | broken
    for p in found.pictures:
        if p.name in broken:
            with pytest.raises((CorruptDataError, FileNotFoundError)):
                p.read()
    result = evaluate(found, ["jpeg"], bpp=100)
    assert {row.file for row in result.rows} == names
    assert {fault.file for fault in result.skipped} == broken
    reasons = {fault.file: fault.reason for fault in result.skipped}
    assert reasons["lost.png"] == "No such file or directory"
    assert reasons["text.png"] == "not a picture that Pillow knows"
    assert "truncated" in reasons["cut.jpg"]
    assert not any("odd" in reason for reason in reasons.values())  # no path of this machine


def test_the_demo_photograph_is_shipped_with_its_licence():
    data = resources.files("otcuda") / "data"
    blob = (data / "demo.jpg").read_bytes()
    assert len(blob) <= 300_000
    with resources.as_file(data / "demo.jpg") as path:
        pixels = read_picture(path)
    assert pixels.shape == (512, 768, 3)
    assert pixels.std() > 40  # a photograph, not a flat plate
    licence = (data / "demo.LICENSE.txt").read_text()
    for part in ("demo.jpg", "Author:", "https://unsplash.com/photos/WeYamle9fDM", "CC0 1.0"):
        assert part in licence

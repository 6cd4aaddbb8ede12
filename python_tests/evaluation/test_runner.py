# SPDX-License-Identifier: Apache-2.0
"""evaluate(): both conventions, what is counted, and that one fault stops nothing else."""

from __future__ import annotations

import json
import math
import sys
import types
from importlib import resources

import numpy as np
import pytest
from json_schema import violations
from PIL import Image

import otcuda
from otcuda.errors import ArgumentError, BudgetError, LimitError
from otcuda.evaluation import Picture, evaluate, find_pictures, ms_ssim, psnr
from otcuda.evaluation.baselines import Encoded

SCHEMA = json.loads(
    (resources.files("otcuda.evaluation") / "eval.schema.json").read_text(encoding="utf-8")
)


class Blocks:
    """A codec whose sizes are known: 4 bytes of size, then the means of square blocks."""

    name = "blocks"
    finest = 5

    def encode(self, image, setting):
        side = 2 ** (self.finest - setting)
        H, W = image.shape[:2]
        padded = np.pad(image, [(0, -H % side), (0, -W % side), (0, 0)], mode="edge")
        blocks = padded.reshape(-(-H // side), side, -(-W // side), side, 3)
        means = blocks.mean((1, 3)).round().astype(np.uint8)
        return np.array([H, W], np.uint16).tobytes() + bytes([setting]) + means.tobytes()

    def decode(self, blob):
        H, W = np.frombuffer(blob[:4], np.uint16).tolist()
        side = 2 ** (self.finest - blob[4])
        means = np.frombuffer(blob[5:], np.uint8).reshape(-(-H // side), -(-W // side), 3)
        return means.repeat(side, 0).repeat(side, 1)[:H, :W]

    def fill(self, image, budget_bytes):
        for setting in range(self.finest, -1, -1):
            blob = self.encode(image, setting)
            if len(blob) <= budget_bytes:
                return Encoded(blob, self.label(setting))
        raise BudgetError(f"blocks needs {len(blob)} bytes")

    def label(self, setting):
        return f"side {2 ** (self.finest - setting)}"

    def size(self, image, setting):
        side = 2 ** (self.finest - setting)
        return 5 + 3 * math.ceil(image.shape[0] / side) * math.ceil(image.shape[1] / side)


def pixels(height, width, seed=0):
    v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (np.stack([u, v, (u + v) // 2], -1) % 200 + noise).clip(0, 255).astype(np.uint8)


LARGE, SMALL = pixels(192, 256), pixels(64, 96, seed=1)
PICTURES = (Picture("large", LARGE), Picture("small", SMALL))


def evaluated(*args, **kwargs):
    """evaluate(), whose JSON must always be valid by the schema."""
    result = evaluate(*args, **kwargs)
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert violations(written, SCHEMA) == []
    return result


def rows_of(result, convention):
    return {row.file: row for row in result.rows if row.convention == convention}


def test_filled_gives_each_picture_its_own_bytes():
    result = evaluated(PICTURES, [Blocks()], bpp=0.1)
    rows = rows_of(result, "filled")
    # 0.1 bit x 49152 pixels = 614 bytes: side 16 (581) fits, side 8 does not
    # 0.1 bit x 6144 pixels = 76 bytes: side 32 (23) and 16 (77) are tried, 77 is one too many
    assert {name: (row.setting, row.bytes) for name, row in rows.items()} == {
        "large": ("side 16", 581),
        "small": ("side 32", 23),
    }
    assert result.target_bpp == 0.1


def test_budget_of_a_whole_number_of_bytes_loses_none():
    codec = Blocks()
    seen = []
    codec.fill = lambda image, budget: seen.append(budget) or Encoded(codec.encode(image, 0), "")
    assert 0.57 * 800 / 8 < 57
    evaluate([Picture("a", pixels(20, 40))], [codec], bpp=0.57)
    evaluate([Picture("kodak", pixels(512, 768))], [codec])
    assert seen == [57, 1474]  # 0.03 bit per pixel is the default


def test_constant_takes_one_setting_by_the_mean_rate():
    codec = Blocks()
    rates = {
        s: [8 * codec.size(p, s) / (p.shape[0] * p.shape[1]) for p in (LARGE, SMALL)]
        for s in range(6)
    }
    target = 1.01 * np.mean(rates[1])
    result = evaluated(PICTURES, [codec], bpp=target)
    rows = rows_of(result, "constant")
    assert {row.setting for row in rows.values()} == {"side 16"}
    assert max(rates[1]) > target > min(rates[1])  # one picture is over: it is the mean that counts
    mean = result.mean("blocks", "constant")
    assert mean.bpp == pytest.approx(np.mean(rates[1]))
    assert (mean.setting, mean.pictures, mean.reached) == ("side 16", 2, True)


def test_rows_hold_the_metrics_of_the_decoded_file():
    codec = Blocks()
    result = evaluated(PICTURES, [codec], bpp=0.1)
    row = rows_of(result, "filled")["large"]
    decoded = codec.decode(codec.encode(LARGE, 1))
    assert row.psnr == psnr(LARGE, decoded)
    assert row.ms_ssim == ms_ssim(LARGE, decoded)
    assert (row.width, row.height, row.bpp) == (256, 192, 8 * 581 / (192 * 256))
    assert (row.lpips_alex, row.lpips_vgg, row.dists) == (None, None, None)
    assert row.encode_ms > 0
    assert row.decode_ms > 0


def test_means_are_over_the_pictures_that_have_the_metric():
    result = evaluated(PICTURES, [Blocks()], bpp=0.1)
    large, small = (rows_of(result, "filled")[name] for name in ("large", "small"))
    mean = result.mean("blocks", "filled")
    assert mean.psnr == pytest.approx((large.psnr + small.psnr) / 2)
    assert mean.bpp == pytest.approx((large.bpp + small.bpp) / 2)
    assert small.ms_ssim is None
    assert mean.ms_ssim == large.ms_ssim
    assert result.notes == ["no MS-SSIM of 1 of 2 pictures, with a side under 161 pixels"]


def test_conventions_are_never_mixed():
    result = evaluated(PICTURES, [Blocks()], bpp=0.1)
    assert [(m.codec, m.convention) for m in result.means] == [
        ("blocks", "filled"),
        ("blocks", "constant"),
    ]
    for mean in result.means:
        rows = rows_of(result, mean.convention).values()
        assert mean.bytes == pytest.approx(np.mean([row.bytes for row in rows]))
    filled, common = (result.mean("blocks", c).bytes for c in ("filled", "constant"))
    assert filled != common


def test_what_a_codec_cannot_reach_is_said_and_not_averaged():
    result = evaluated(PICTURES, [Blocks()], budget_bytes=100)
    filled = result.mean("blocks", "filled")
    assert (filled.pictures, filled.reached, filled.not_reached) == (1, False, ("large",))
    assert filled.bytes == 77  # of "small" alone
    tight = evaluated(PICTURES, [Blocks()], bpp=0.001)
    common = tight.mean("blocks", "constant")
    assert (common.pictures, common.reached, common.setting) == (2, False, "side 32")
    assert common.bpp > 0.001
    assert tight.mean("blocks", "filled").psnr is None


def test_budget_in_bytes_is_the_same_for_each_picture():
    result = evaluated(PICTURES, [Blocks()], budget_bytes=700)
    rows = rows_of(result, "filled")
    assert (rows["large"].bytes, rows["small"].bytes) == (581, 293)
    assert result.budget_bytes == 700
    assert result.target_bpp == pytest.approx(np.mean([5600 / 49152, 5600 / 6144]))


def test_a_fixed_quality_sets_the_bytes_of_the_others():
    class Rival(Blocks):
        name = "rival"

    class Plateau(Blocks):  # a search would end at 5, which takes no more bytes than 2
        def encode(self, image, setting):
            return super().encode(image, min(setting, 2))

    result = evaluated(PICTURES, [Plateau(), Rival()], quality=2)
    leader = rows_of(result, "constant")
    assert [(m.codec, m.convention) for m in result.means] == [
        ("rival", "filled"),
        ("blocks", "constant"),
        ("rival", "constant"),
    ]
    codec = Blocks()
    for name, image in (("large", LARGE), ("small", SMALL)):
        assert rows_of(result, "filled")[name].bytes == codec.size(image, 2)
        assert leader[name].setting == "side 8"
    assert result.target_bpp == pytest.approx(result.mean("blocks", "constant").bpp)
    assert result.quality == 2


def test_a_codec_that_fails_stops_no_other():
    class Broken(Blocks):
        name = "broken"

        def encode(self, image, setting):
            if image.shape == SMALL.shape:
                raise LimitError("too much")
            return super().encode(image, setting)

    class Cropping(Blocks):
        name = "cropping"

        def decode(self, blob):
            return super().decode(blob)[:-1]

    result = evaluated(PICTURES, [Broken(), Cropping(), Blocks()], bpp=0.1)
    assert result.mean("blocks", "filled").pictures == 2
    assert result.mean("broken", "filled").pictures == 1
    assert result.mean("broken", "constant").pictures == 0
    assert result.mean("cropping", "filled").pictures == 0
    faults = {(f.codec, f.convention, f.file): f.reason for f in result.failures}
    assert faults["broken", "filled", "small"] == "too much"
    assert faults["broken", "constant", "small"] == "too much"
    assert "of one size" in faults["cropping", "constant", "large"]
    assert len(faults) == 6


def test_an_exact_copy_has_no_finite_psnr():
    result = evaluated([Picture("small", SMALL)], [Blocks()], bpp=30)
    assert result.rows[0].psnr == math.inf
    assert result.to_json()["rows"][0]["psnr"] is None
    assert result.to_json()["means"][0]["psnr"] is None


def test_unreadable_pictures_are_skipped_and_the_rest_goes_on(tmp_path):
    Image.fromarray(SMALL).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    result = evaluated(find_pictures(tmp_path), [Blocks()], bpp=0.1)
    assert [(f.file, f.reason) for f in result.skipped] == [
        ("bad.png", "not a picture that Pillow knows")
    ]
    assert {row.file for row in result.rows} == {"good.png"}
    (tmp_path / "good.png").unlink()
    with pytest.raises(ArgumentError, match=r"none of 1 can be read; bad\.png: not a picture"):
        evaluate(find_pictures(tmp_path), [Blocks()])


def test_networks_are_asked_once_a_decoded_picture(monkeypatch):
    networks = pytest.importorskip("otcuda.evaluation.networks")
    made = []

    class Reference:
        def __init__(self, perceptual, image):
            made.append(image.shape)
            self.image = image

        def scores(self, decoded):
            return {"lpips_alex": float(np.abs(self.image - decoded.astype(int)).mean())}

    monkeypatch.setattr(networks, "Reference", Reference)
    codec = Blocks()
    result = evaluated(PICTURES, [codec], bpp=0.1, networks=object())
    assert made == [LARGE.shape, SMALL.shape]
    expected = np.abs(LARGE - codec.decode(codec.encode(LARGE, 1)).astype(int)).mean()
    assert rows_of(result, "filled")["large"].lpips_alex == pytest.approx(expected)
    assert result.mean("blocks", "filled").lpips_alex is not None
    assert result.mean("blocks", "filled").dists is None


def test_callback_counts_to_the_end_and_can_stop():
    calls = []
    evaluate(PICTURES, [Blocks()], bpp=0.1, callback=lambda *call: calls.append(call))
    measured = [call for call in calls if call[1] == 4]
    assert [done for done, _, _ in measured] == [0, 1, 2, 3, 4]
    assert measured[0][2] == "large: blocks, filled"

    def stop(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(PICTURES, [Blocks()], bpp=0.1, callback=stop)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bpp": 0.1, "budget_bytes": 5}, "give one of bpp, budget_bytes and quality"),
        ({"bpp": 0.0}, "bpp must be positive, got 0.0"),
        ({"bpp": math.nan}, "bpp must be positive, got nan"),
        ({"budget_bytes": -1}, "budget_bytes must be positive"),
        ({"quality": -1}, "quality must be positive"),
        ({"codecs": ["gif"]}, "'gif' is none of otcuda, jpeg, jpeg2000, webp, avif"),
        ({"codecs": ["jpeg", "jpeg"]}, "each once"),
        ({"codecs": []}, "at least one"),
        ({"pictures": [*PICTURES, PICTURES[0]]}, "2 are called 'large'"),
        ({"pictures": []}, "pictures: none given"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ArgumentError, match=says):
        evaluate(**({"pictures": PICTURES, "codecs": [Blocks()]} | arguments))


@pytest.fixture
def codec_module(monkeypatch):
    """A stand-in for `otcuda.codec` that notes how it was called."""
    module = types.ModuleType("otcuda.codec")
    module.calls = []
    blocks = Blocks()

    def compress(image, *, bytes=None, quality=None, model=None, **options):
        module.calls.append(
            ({"bytes": bytes} if bytes else {"quality": quality}) | options | {"model": model}
        )
        if bytes:
            return blocks.fill(image, bytes).blob
        return blocks.encode(image, quality // 20)

    def decompress(blob, *, realism=0.0, model=None):
        module.calls.append({"realism": realism, "model": model})
        return blocks.decode(blob)

    module.compress, module.decompress = compress, decompress
    monkeypatch.setitem(sys.modules, "otcuda.codec", module)
    monkeypatch.setattr(otcuda, "codec", module, raising=False)
    return module


def test_the_package_s_own_codec_behind_its_adapter(codec_module):
    from otcuda.evaluation import OtcudaCodec

    result = evaluated(PICTURES, ["otcuda"], bpp=0.1)
    assert rows_of(result, "filled")["large"].bytes == 581
    assert {"bytes": 614, "model": None} in codec_module.calls
    assert {"realism": 0.0, "model": None} in codec_module.calls
    common = result.mean("otcuda", "constant")
    assert common.bpp <= 0.1
    assert common.setting == "quality 39"  # of the stand-in, 40 is the next finer
    assert {"quality": 39, "model": None} in codec_module.calls
    assert {"quality": 40, "model": None} in codec_module.calls

    codec = OtcudaCodec(realism=0.5, model="mine", effort=1)
    assert codec.name == "otcuda realism 0.5"
    codec.decode(codec.encode(SMALL, 100))
    assert codec_module.calls[-2:] == [
        {"quality": 100, "effort": 1, "model": "mine"},
        {"realism": 0.5, "model": "mine"},
    ]


def test_evaluation_needs_no_torch():
    import subprocess

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from otcuda.evaluation import Picture, evaluate, table, psnr, ms_ssim, find_pictures\n"
        "image = np.random.default_rng(0).integers(0, 256, (170, 170, 3), dtype=np.uint8)\n"
        "print(table(evaluate([Picture('a', image)], ['jpeg', 'webp'], bpp=9)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert "jpeg" in done.stdout

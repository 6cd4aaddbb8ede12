# SPDX-License-Identifier: Apache-2.0
"""The report: its schema, its text table, CompressAI's shape."""

from __future__ import annotations

import json
from importlib import resources

import pytest
from json_schema import violations

from otcuda.evaluation import Evaluation, table
from otcuda.evaluation.report import Fault, Mean, Row

SCHEMA = json.loads(
    (resources.files("otcuda.evaluation") / "eval.schema.json").read_text(encoding="utf-8")
)


def row(codec="ours", convention="filled", file="a.png", **more):
    sizes = {"bytes": 1470, "bpp": 0.0299, "width": 768, "height": 512}
    times = {"encode_ms": 812.4, "decode_ms": 95.2}
    given = {"setting": "bytes", "psnr": 24.31, "ms_ssim": 0.8123} | sizes | times | more
    return Row(codec=codec, convention=convention, file=file, **given)


def mean(codec="ours", convention="filled", **more):
    figures = {"bytes": 1470.4, "bpp": 0.02991, "encode_ms": 812.4, "decode_ms": 95.2}
    metrics = {"psnr": 24.314, "ms_ssim": 0.81234, "lpips_alex": None, "lpips_vgg": None}
    given = {"target_bpp": 0.03, "setting": None, "pictures": 1, "reached": True}
    given |= {"not_reached": (), "dists": None} | figures | metrics | more
    return Mean(codec=codec, convention=convention, **given)


EMPTY = dict.fromkeys(["bytes", "bpp", "encode_ms", "decode_ms", "psnr", "ms_ssim"])


@pytest.fixture
def evaluation():
    return Evaluation(
        name="kodak",
        target_bpp=0.03,
        notes=["no MS-SSIM of 1 of 2 pictures"],
        means=[
            mean(),
            mean("webp", pictures=0, reached=False, not_reached=("a.png",), **EMPTY),
            mean(convention="constant", setting="step 90", dists=0.25),
            mean("webp", "constant", setting="quality 0", reached=False, bpp=0.10257),
            mean("avif", "constant", pictures=0, reached=False, **EMPTY),
        ],
        rows=[row(), row(convention="constant")],
        skipped=[Fault("bad\n.png", "not a picture that Pillow knows")],
        failures=[Fault("a.png", "no memory", "avif", "constant")],
        versions={"otcuda": "0.1.0"},
    )


def test_table_keeps_the_conventions_apart_and_says_what_is_missing(evaluation):
    assert table(evaluation) == (
        "kodak: 1 pictures, at most 0.03 bit per pixel\n"
        "\n"
        "filled: each picture the best file within its bytes\n"
        "codec  bytes     bpp   PSNR  MS-SSIM  enc ms  dec ms  fits\n"
        "ours    1470  0.0299  24.31   0.8123     812      95  1/1\n"
        "webp       -       -      -        -       -       -  0/1\n"
        "\n"
        "constant: one setting for all pictures, mean rate within the target\n"
        "codec  bytes     bpp   PSNR  MS-SSIM   DISTS  enc ms  dec ms  setting\n"
        "ours    1470  0.0299  24.31   0.8123  0.2500     812      95  step 90\n"
        "webp    1470  0.1026  24.31   0.8123       -     812      95"
        "  quality 0, its coarsest: over the target\n"
        "avif       -       -      -        -       -       -       -  failed\n"
        "note: no MS-SSIM of 1 of 2 pictures\n"
        "skipped bad\\n.png: not a picture that Pillow knows\n"
        "failed avif, constant, a.png: no memory\n"
    )


def test_table_names_the_target_that_was_asked_for(evaluation):
    evaluation.budget_bytes = 1474
    assert "at most 1474 bytes each" in table(evaluation)
    evaluation.budget_bytes, evaluation.quality = None, 7
    assert "0.03 bit per pixel (what the first codec took)" in table(evaluation)


def test_json_is_valid_and_names_its_schema(evaluation):
    written = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert violations(written, SCHEMA) == []
    assert written["schema"] == 1
    assert written["kind"] == "evaluation"
    assert written["rows"][0]["psnr"] == 24.31
    assert written["skipped"][0]["file"] == "bad\n.png"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("rows", 0, "bytes"), 0),
        (("rows", 0, "bytes"), 14.5),
        (("rows", 0, "convention"), "best"),
        (("rows", 0, "surprise"), 1),
        (("means", 0, "reached"), None),
        (("skipped", 0, "reason"), ""),
        (("versions", "otcuda"), 1),
    ],
)
def test_schema_refuses_what_is_wrong(evaluation, path, value):
    written = json.loads(json.dumps(evaluation.to_json()))
    place = written
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert len(violations(written, SCHEMA)) == 1


def test_schema_misses_no_field(evaluation):
    written = json.loads(json.dumps(evaluation.to_json()))
    parts = [written, written["rows"][0], written["means"][0], written["skipped"][0]]
    for part in parts:
        for key in list(part):
            value = part.pop(key)
            assert violations(written, SCHEMA)[0].endswith(f"lacks {key}")
            part[key] = value


def test_compressai_shape(evaluation):
    written = evaluation.to_compressai("ours", "constant")
    assert set(written) == {"name", "description", "results"}
    assert written["results"] == {
        "psnr": [24.314],
        "ms-ssim": [0.81234],
        "bpp": [0.02991],
        "encoding_time": [pytest.approx(0.8124)],
        "decoding_time": [pytest.approx(0.0952)],
    }
    assert "constant" in written["description"]
    with pytest.raises(KeyError, match="jpeg, filled"):
        evaluation.to_compressai("jpeg", "filled")

# SPDX-License-Identifier: Apache-2.0
"""How the encoder fills a budget: few looks, and none at families that are far behind."""

import math
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from otcuda.codec import codec, compress, load_models


class CountedTask:
    """What the search of a multiplier asks of a picture: bits that fall with it."""

    def __init__(self, least_that_fits):
        self.least, self.looks = least_that_fits, 0

    def quantised(self, _step, multiplier):
        self.looks += 1
        k = round(multiplier / codec.LARGEST_FILL * codec.FILL_STEPS)
        assert 1 <= k <= codec.FILL_STEPS
        return SimpleNamespace(bits=1000.0 + self.least - k, symbols=k, values=k)

    def file(self, _step, symbols):
        return bytes([symbols])

    def error(self, _step, values):
        return float(values)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("wanted", [*range(1, codec.FILL_STEPS + 1)])
def test_the_budget_is_filled_by_the_least_multiplier(wanted, known):
    task, least = CountedTask(wanted), max(1, wanted - 2) if known else 1
    assert codec._filled(task, 9, 1000.0, 1, least) == (wanted, [(float(wanted), bytes([wanted]))])
    assert task.looks <= (3 if least > 1 else 7)


def test_a_step_that_no_multiplier_makes_fit_is_left_alone():
    task = CountedTask(codec.FILL_STEPS + 1)
    assert codec._filled(task, 9, 1000.0, 1, 5) == (5, [])
    assert task.looks <= 7


def test_a_family_far_behind_is_not_improved(monkeypatch):
    """At 0.5 bit a pixel the weights for low rates are; whoever is not, is improved."""
    with resources.as_file(resources.files("otcuda") / "data" / "demo.jpg") as path:
        photo = np.asarray(Image.open(path).convert("RGB"))
    improved = []
    search = codec._improved

    def watched(plain, *rest):
        improved.append((plain.task.model.digest, plain.error))
        return search(plain, *rest)

    monkeypatch.setattr(codec, "_improved", watched)
    compress(photo, bpp=0.5)
    errors = [error for _, error in improved]
    assert 1 <= len(improved) < len(load_models())
    assert max(errors) <= codec.MOST_IMPROVED * min(errors)
    monkeypatch.setattr(codec, "MOST_IMPROVED", math.inf)
    compress(photo, bpp=0.5)
    assert len(improved) > 2 * len(errors)

# SPDX-License-Identifier: Apache-2.0
"""Curves over rate and the Bjontegaard difference between two of them."""

import numpy as np
import pytest

from otcuda.errors import ArgumentError
from otcuda.evaluation import Curve, bd_rate

RATES = np.geomspace(0.02, 1.0, 7)


def law(name="law", factor=1.0, rates=RATES):
    """A codec of 3 dB for twice the rate, which takes `factor` times the rate of the first."""
    return Curve(name, list(rates * factor), list(30 + 3 * np.log2(rates)))


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_a_codec_of_a_constant_factor_differs_by_it(factor):
    assert bd_rate(law("ours", factor), law()) == pytest.approx(factor - 1, abs=1e-12)


def test_a_range_counts_only_what_lies_in_it():
    # as good as the anchor below 0.1 bpp, twice its rate above
    rates = np.geomspace(0.02, 1.0, 40)
    ours = Curve("ours", list(np.where(rates < 0.1, rates, 2 * rates)), law(rates=rates).quality)
    assert bd_rate(ours, law(rates=rates), 0.02, 0.09) == pytest.approx(0, abs=1e-4)
    assert bd_rate(ours, law(rates=rates), 0.12, 0.9) == pytest.approx(1, abs=1e-4)


def test_curves_without_a_common_quality_have_no_difference():
    assert bd_rate(law(), law(rates=RATES), 2.0, 3.0) is None


def test_quality_between_points_is_linear_in_the_logarithm():
    assert law().at(0.04) == pytest.approx(30 + 3 * np.log2(0.04))
    assert law().at(0.019) is None
    assert law().at(1.01) is None


@pytest.mark.parametrize(
    ("bpp", "quality", "told"),
    [
        ([0.1, 0.1], [1.0, 2.0], "must be positive and rise"),
        ([0.0, 0.1], [1.0, 2.0], "must be positive and rise"),
        ([0.1, 0.2], [1.0], "as many of both"),
        ([0.1], [1.0], "two or more"),
    ],
)
def test_no_curve(bpp, quality, told):
    with pytest.raises(ArgumentError, match=told):
        Curve("x", bpp, quality)


@pytest.mark.parametrize("quality", [[1, 2, 3], [1, 3, 2, 4]])
def test_a_difference_wants_four_rising_points(quality):
    bpp = [0.1 * (k + 1) for k in range(len(quality))]
    with pytest.raises(ArgumentError, match="4 or more points of rising quality"):
        bd_rate(Curve("x", bpp, quality), law())

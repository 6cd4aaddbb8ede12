# SPDX-License-Identifier: Apache-2.0
"""What is measured on finished weights before they are written."""

import math

import numpy as np
import pytest
from tiny_codec import structured_picture

from otcuda.codec import load_model
from otcuda.codec.bitstream import CUSTOM_MODEL, Header, write_file
from otcuda.training import release


@pytest.mark.parametrize("gain", [0.3, 0.0])
def test_the_multiplier_is_the_one_of_most_psnr_at_the_same_bits(monkeypatch, gain):
    """A codec whose curve is known: 6 dB for twice the bits, conditional heights best at 0.06."""

    def coder(_model, _picture):
        def code(k, multiplier):
            octaves = k / 32 + 2 * (multiplier or 0)
            better = 0 if multiplier is None else gain - 40 * abs(multiplier - 0.06) ** 1.5 - 0.1
            return 4096 * 2**-octaves, 40 - 6 * octaves + better

        return code

    monkeypatch.setattr(release, "_coder", coder)
    expected = 0.06 if gain else 0.0
    assert release.quality_multiplier(None, [0, 1], (70, 109)) == expected
    assert release.quality_multiplier(None, [], (70, 109)) == 0.0


def test_bits_and_psnr_are_those_of_the_file():
    from otcuda.codec import compress, decompress
    from otcuda.evaluation.metrics import psnr

    model, picture = load_model(), structured_picture(3)
    code = release._coder(model, picture)
    data = compress(picture, quality=60, effort=0, model=model)
    step = round(224 - 0.96 * 60)
    bits, db = code(step, None)
    assert abs(len(data) - bits / 8) < 16
    assert math.isclose(db, psnr(picture, decompress(data, model=model)), abs_tol=1e-3)
    fewer, worse = code(step, 0.1)
    assert fewer < bits
    assert worse < db
    assert np.isfinite(worse)


def test_the_fixed_mode_fits_a_photograph_into_three_hundredths_of_a_bit():
    """With the longest head a coded picture has, one that names weights by their digest."""
    header = Header(768, 512, "fixed", 160, False, CUSTOM_MODEL, bytes(4))
    tiles = (768 // 64) * (512 // 64)
    payload = bytes(-(-release.FIXED_BITS[0] * tiles // 8))
    assert len(write_file(header, payload)) <= 1474

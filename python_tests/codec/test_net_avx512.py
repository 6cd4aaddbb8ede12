# SPDX-License-Identifier: Apache-2.0
"""The AVX-512 file of net on any CPU, intrinsics done by hand; the tile stays in registers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ops.test_power_argmax_avx512 import CSRC, FLAGS, LEVEL_FLAGS, inner_loops

BY_HAND = Path(__file__).parents[1] / "ops" / "avx512_by_hand"

pytestmark = [
    pytest.mark.slow,  # compiles for some seconds
    pytest.mark.skipif(
        shutil.which("g++") is None or not CSRC.is_dir(), reason="needs g++ and the sources"
    ),
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    library = tmp_path_factory.mktemp("avx512") / "net.so"
    levels = [CSRC / "cpu" / f"net_{level}.cpp" for level in ("avx512", "portable")]
    command = ["g++", *FLAGS, "-O1", "-shared", "-w", f"-I{BY_HAND}", f"-I{CSRC}"]
    subprocess.run([*command, BY_HAND / "net.cpp", *levels, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def pointer(array):
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def both(function, given, out_shape, place):
    """Results at both levels; `out` takes its place among the arguments."""
    results = []
    for level in (1, 0):
        out = np.full(out_shape, np.nan, "f4")
        arguments = [a if isinstance(a, int) else pointer(a) for a in given]
        arguments.insert(place, pointer(out))
        function(level, *arguments)
        results.append(out)
    return results


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0, 3, shape).astype("f4")


@pytest.mark.parametrize("n", [1, 11, 12, 13, 25])
@pytest.mark.parametrize(("n_taps", "inputs"), [(1, 1), (1, 17), (9, 5)])
@pytest.mark.parametrize("biased", [False, True])
def test_products(kernels, n, n_taps, inputs, biased):
    sizes = np.array([n_taps, inputs, 64, 20, n], "i8")  # x is 64 floats a row, out 20
    taps = np.arange(n_taps) * 7
    x, weights = normal(1, n, 64), normal(2, n_taps, inputs, 16)
    given = [weights, normal(3, 16) if biased else None, taps, sizes, x]
    ours, portable = both(kernels.net_products, given, (n, 20), 5)
    assert ours.tobytes() == portable.tobytes()
    assert np.isfinite(ours[:, :16]).all()
    assert np.isnan(ours[:, 16:]).all()


@pytest.mark.parametrize("channels", [16, 48])
def test_input(kernels, channels):
    sizes = np.array([10 * channels, channels, channels, channels + 16], "i8")
    window = normal(4, 6, 10, channels)
    ours, portable = both(kernels.net_input, [sizes, window], (36, channels + 16), 2)
    assert ours.tobytes() == portable.tobytes()
    assert np.isfinite(ours[:, :channels]).all()


@pytest.mark.parametrize(("inside", "after"), [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("skipped", [False, True])
def test_output(kernels, inside, after, skipped):
    channels = 32
    sizes = np.array([8 * channels, channels, channels, channels + 16], "i8")
    points, bias = normal(5, 36, channels + 16), normal(6, channels)
    skip = normal(7, 4, 8, channels) if skipped else None
    given = [sizes, bias, inside, after, points, skip]
    ours, portable = both(kernels.net_output, given, (4, 8, channels), 6)
    assert ours.tobytes() == portable.tobytes()
    assert np.isfinite(ours[:, :4]).all()
    assert np.isnan(ours[:, 4:]).all()


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_the_products_stay_in_registers(level, tmp_path):
    target = tmp_path / "kernel.o"
    flags = [*FLAGS, *LEVEL_FLAGS[level], "-O3", f"-I{CSRC}"]
    source = CSRC / "cpu" / f"net_{level}.cpp"
    subprocess.run(["g++", *flags, "-c", source, "-o", target], check=True)
    bodies = [b for b in inner_loops(target) if sum("vfmadd" in line for line in b) == 12]
    assert len(bodies) == 2  # of net's products and of conv3's
    for body in bodies:
        assert not any("(%rsp" in line for line in body)
        assert len(body) < 34

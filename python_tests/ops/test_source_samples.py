# SPDX-License-Identifier: Apache-2.0
"""source_samples: Philox known answers, the laws of the sources, the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtr, ndtri

import otcuda
from otcuda import _ops, reference

SOURCES = ["normal", "uniform", "gaussian_cdf"]

# Random123's known answers for philox4x32-10: counter words, key words, output words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(sequence):
    return sum(int(word) << (32 * k) for k, word in enumerate(sequence))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_reference_gives_the_known_answers(counter, key, expected):
    position, stream = words(counter[:2]), words(counter[2:])
    signed = position - 2**64 if position >= 2**63 else position
    got = reference.philox_words(words(key), stream, signed, 1)
    assert got.tolist() == list(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("source", SOURCES)
def test_equals_reference(source, dtype, simd_level):
    for B, D, offset in ((3, 5, 0), (301, 7, 11), (1, 1, 3), (9, 7, 2**59 + 3)):
        got = otcuda.source_samples(
            torch.empty(B, D, dtype=dtype), source, seed=2**63 + 9, stream=2**40 + 1, offset=offset
        )
        want = reference.source_samples(
            torch.empty(B, D, dtype=torch.float64),
            source,
            seed=2**63 + 9,
            stream=2**40 + 1,
            offset=offset,
        )
        assert torch.equal(got.float(), got.to(dtype).float())
        torch.testing.assert_close(got.double(), want, rtol=6e-7, atol=1.2e-7)
        if source == "uniform":
            assert torch.equal(got.double(), want)


@pytest.mark.parametrize("source", SOURCES)
def test_any_part_can_be_drawn_alone_on_any_level_and_threads(source):
    D = 3
    otcuda.set_simd_level("portable")
    whole = otcuda.source_samples(np.empty((40_000, D), "f4"), source, seed=5)
    for level in otcuda.backend_info()["simd_levels"]:
        otcuda.set_simd_level(level)
        for threads in (1, 3):
            otcuda.set_num_threads(threads)
            again = otcuda.source_samples(np.empty((40_000, D), "f4"), source, seed=5)
            assert again.tobytes() == whole.tobytes()
    otcuda.set_num_threads(0)
    otcuda.set_simd_level("auto")
    for begin, count in ((0, 1), (1, 700), (39_999, 1), (1234, 257)):
        part = otcuda.source_samples(np.empty((count, D), "f4"), source, seed=5, offset=begin)
        assert part.tobytes() == whole[begin : begin + count].tobytes()


@pytest.mark.parametrize(
    ("source", "law"),
    [("normal", stats.norm()), ("uniform", stats.uniform()), ("gaussian_cdf", stats.uniform())],
)
def test_law(source, law):
    x = otcuda.source_samples(np.empty((50_000, 4), "f4"), source, seed=11)
    assert stats.kstest(x.ravel(), law.cdf).pvalue > 1e-3
    correlation = np.corrcoef(x.T)[np.triu_indices(4, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(x))
    for seed, stream in ((12, 0), (11, 1)):
        other = otcuda.source_samples(np.empty_like(x), source, seed=seed, stream=stream)
        assert abs(np.corrcoef(x.ravel(), other.ravel())[0, 1]) < 4.5 / np.sqrt(x.size)


def test_gaussian_cdf_is_phi_of_the_normal():
    z = otcuda.source_samples(np.empty((30_000, 4), "f4"), "normal", seed=3).astype("f8")
    u = otcuda.source_samples(np.empty((30_000, 4), "f4"), "gaussian_cdf", seed=3).astype("f8")
    assert np.abs(ndtr(z) - u).max() < 2.5e-7
    low = u < 0.5
    assert np.abs(ndtri(u[low]) - z[low]).max() < 2e-6
    assert 3.9 < np.abs(z).max() < 6.24


def test_opcheck_and_version():
    op = _ops.torch_ops().source_samples.default
    torch.library.opcheck(op, (torch.zeros(4, 3), "uniform", 1, 2, 3))
    out = torch.zeros(4, 3)
    before = out._version
    otcuda.source_samples(out)
    assert out._version > before  # autograd hears of the write
    assert out.abs().min() > 0


@pytest.mark.parametrize(
    ("out", "source", "message"),
    [
        (np.empty((2, 2), "f4"), "cube", "source is 'cube', expected normal, uniform or gaussian"),
        (np.empty(4, "f4"), "normal", r"takes out \[B, D\]; got out \[4\]"),
        (np.empty((2, 2), "i4"), "normal", "out is int32, expected float32 or float64"),
        (np.empty((4, 4), "f4")[:, ::2], "normal", "out is not contiguous"),
        ([[0.0]], "normal", "out is list; it is written to"),
    ],
)
def test_bad_arguments_are_named(out, source, message):
    with pytest.raises(ValueError, match=message):
        otcuda.source_samples(out, source)
    frozen = np.zeros((2, 2), "f4")
    frozen.flags.writeable = False
    with pytest.raises(otcuda.ArgumentError, match="out is read-only"):
        otcuda.source_samples(frozen)

# SPDX-License-Identifier: Apache-2.0
"""compat64: the bytes of CompressAI's extension, and torchac's two functions over range64."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from coding.compat_cases import compat_case
from decoders import compat64 as plain
from decoders import range64 as plain_range64

import otcuda
from otcuda.coding import compat64

# Made by CompressAI 1.2.8's `ans` from the cases; nothing of ours took part.
VECTORS = json.loads((Path(__file__).parent.parent / "golden/compat64_v1.json").read_text())
CDFS, SIZES, OFFSETS = [[0, 30000, 60000, 65536]], [4], [-1]


def described(data):
    sha = hashlib.sha256(data).hexdigest()
    return {"bytes": len(data), "start": data[:24].hex(), "sha256": sha}


@pytest.mark.parametrize("k", range(20))
def test_bytes_are_those_of_compressai(k):
    symbols, indexes, *tables = compat_case(k)
    stream = compat64.RansEncoder().encode_with_indexes(symbols, indexes, *tables)
    assert described(stream) == VECTORS[k]
    assert compat64.RansDecoder().decode_with_indexes(stream, indexes, *tables) == symbols
    assert plain.decode(stream, indexes, *tables) == symbols


def test_pieces_in_and_out():
    encoder, decoder = compat64.BufferedRansEncoder(), compat64.RansDecoder()
    cases = [compat_case(3), compat_case(4)]
    for case in cases:
        encoder.encode_with_indexes(*case)
    stream = encoder.flush()
    assert described(stream) == VECTORS[20]
    decoder.set_stream(stream)
    for symbols, indexes, *tables in cases:
        assert decoder.decode_stream(indexes, *tables) == symbols


def test_where_the_original_crashes():
    """No symbols at all, and a table whose sentinel owns everything."""
    assert len(compat64.BufferedRansEncoder().flush()) == 8
    args = ([0, 0, 0], [[0, 65536]], [2], [0])
    stream = compat64.RansEncoder().encode_with_indexes([5, -(2**31), 2**31 - 1], *args)
    decoded = compat64.RansDecoder().decode_with_indexes(stream, *args)
    assert decoded == [5, -(2**31), 2**31 - 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [1], CDFS, SIZES, OFFSETS), "an index is 1, expected 0 .. 0"),
        (([0], [-1], CDFS, SIZES, OFFSETS), "an index is -1"),
        (([0], [0], [[0, 5, 5, 65536]], SIZES, OFFSETS), r"cdfs\[0\] does not rise"),
        (([0], [0], [[1, 5, 6, 65536]], SIZES, OFFSETS), r"cdfs\[0\] does not rise"),
        (([0], [0], [[0, 5, 65535]], [3], OFFSETS), r"cdfs\[0\] does not rise"),
        (([0], [0], CDFS, [5], OFFSETS), r"cdf_sizes\[0\] is 5, expected 2 .. 4"),
        (([0], [0], CDFS, [1], OFFSETS), r"cdf_sizes\[0\] is 1"),
        (([2**31], [0], CDFS, SIZES, OFFSETS), "outside int32"),
        (([0, 1], [0], CDFS, SIZES, OFFSETS), "2 symbols, but 1 indexes"),
        (([0], [0], CDFS, SIZES, [0, 0]), "offsets"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((otcuda.ArgumentError, otcuda.ShapeError), match=message):
        compat64.RansEncoder().encode_with_indexes(*arguments)


def test_damaged_streams_end():
    symbols, indexes, *tables = compat_case(4)
    stream = compat64.RansEncoder().encode_with_indexes(symbols, indexes, *tables)
    for k in (0, 4, 7, len(stream) // 2 // 4 * 4):
        with pytest.raises(otcuda.CorruptDataError, match="ends early"):
            compat64.RansDecoder().decode_with_indexes(stream[:k], indexes, *tables)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(stream)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        try:
            decoded = compat64.RansDecoder().decode_with_indexes(bytes(data), indexes, *tables)
        except otcuda.CorruptDataError:
            continue
        assert len(decoded) == len(symbols)
    with pytest.raises(otcuda.ArgumentError, match="call set_stream first"):
        compat64.RansDecoder().decode_stream([0], CDFS, SIZES, OFFSETS)


# --- torchac's names ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0,), (1,), (7, 5, 3), (2000,)])
def test_float_cdf_round_trip(shape):
    rng = np.random.default_rng(1)
    steps = rng.random((*shape, 9)) ** 4
    cdf = np.concatenate(
        [np.zeros((*shape, 1)), steps.cumsum(-1) / steps.sum(-1, keepdims=True)], -1
    )
    sym = (rng.random((*shape, 1)) > cdf[..., 1:-1]).sum(-1).astype(np.int16)
    stream = compat64.encode_float_cdf(cdf.astype(np.float32), sym, check_input_bounds=True)
    decoded = compat64.decode_float_cdf(cdf.astype(np.float32), stream)
    np.testing.assert_array_equal(decoded, sym, strict=True)
    rows = cdf.astype(np.float32).reshape(-1, 10).tolist()
    assert plain_range64.decode_float_cdf(rows, stream) == sym.reshape(-1).tolist()
    if shape == (2000,):
        bits = -np.log2(np.take_along_axis(np.diff(cdf), sym[:, None].astype(int), 1)).sum()
        assert abs(8 * len(stream) - bits) < 0.01 * bits + 8


def test_float_cdf_of_torch():
    torch = pytest.importorskip("torch")
    cdf = torch.tensor([[0.0, 0.25, 1.0], [0.0, 0.5, 1.0]])
    sym = torch.tensor([1, 0], dtype=torch.int16)
    decoded = compat64.decode_float_cdf(cdf, compat64.encode_float_cdf(cdf, sym))
    assert decoded.dtype == torch.int16
    assert decoded.tolist() == [1, 0]


def test_float_cdf_arguments():
    with pytest.raises(otcuda.ArgumentError, match=r"sym\[0\] is 2, expected 0 .. 1"):
        compat64.encode_float_cdf([[0, 0.5, 1]], [2])
    with pytest.raises(otcuda.ArgumentError, match="falls"):
        compat64.encode_float_cdf([[0, 0.5, 0.4, 1]], [0])
    with pytest.raises(otcuda.ShapeError, match="takes cdf_float"):
        compat64.encode_float_cdf([[0, 0.5, 1]], [0, 1])
    with pytest.raises(otcuda.CorruptDataError):
        compat64.decode_float_cdf([[0, 0.5, 1]], b"\x01" * 9)

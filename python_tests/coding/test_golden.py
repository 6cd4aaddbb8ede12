# SPDX-License-Identifier: Apache-2.0
"""Bytes of messages and tables do not change, and plain Python reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from coding.cases import MESSAGES, WIDE
from coding.golden_coding import golden
from decoders import range64 as plain

from otcuda.coding import decode, decode_raw, encode, encode_raw

FOLDER = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def made():
    return golden()


@pytest.mark.parametrize("what", ["coder_v1", "lanes_v1", "rans32_v1", "tables_v2", "wide_v1"])
def test_bytes_are_the_pinned_ones(what, made):
    name = f"{what}.json"
    assert json.loads(made[name]) == json.loads((FOLDER / name).read_text())


@pytest.mark.parametrize("case", MESSAGES + WIDE, ids=lambda case: case.name)
def test_both_decoders_return_the_symbols(case):
    tables, index = case.tables(), case.index()
    symbols = case.symbols(tables)
    raw, blob = encode_raw(symbols, tables, index), encode(symbols, tables, index)
    np.testing.assert_array_equal(decode_raw(raw, tables, index), symbols, strict=True)
    np.testing.assert_array_equal(decode(blob, tables, index), symbols, strict=True)
    theirs = plain.read_tables(tables.to_bytes())
    for lanes in (2, 4):
        split = encode_raw(symbols, tables, index, lanes)
        decoded = decode_raw(split, tables, index, lanes=lanes)
        np.testing.assert_array_equal(decoded, symbols, strict=True)
        assert plain.decode_raw(split, theirs, index.tolist(), lanes) == symbols.tolist()
    assert plain.decode_raw(raw, theirs, index.tolist()) == symbols.tolist()
    assert plain.decode(blob, theirs, index.tolist()) == symbols.tolist()

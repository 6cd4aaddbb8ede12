# SPDX-License-Identifier: Apache-2.0
"""What python_tests/golden/ says of the coder: `golden()` gives name and text of each file."""

from __future__ import annotations

import hashlib
import json

from coding.cases import MESSAGES, WIDE, numbers, spread_weights

from otcuda.coding import RangeEncoder, Tables, encode, encode_long, encode_raw


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def message_entry(case) -> dict:
    tables, index = case.tables(), case.index()
    symbols = case.symbols(tables)
    raw = encode_raw(symbols, tables, index)
    return {
        "tables": tables.digest.hex(),
        "symbols": sha(symbols.astype("<i4").tobytes()),
        "bytes": len(raw),
        "start": raw[:16].hex(),
        "raw": sha(raw),
        "container": sha(encode(symbols, tables, index)),
    }


def steps_message() -> bytes:
    """Every kind of step, interleaved, 200 times."""
    encoder = RangeEncoder()
    tables = Tables.laplace([1.5], -8, 8)
    for k, (v, s) in enumerate(zip(numbers("v", 200, 2**63), numbers("s", 200, 64), strict=True)):
        encoder.bits(v >> (63 - k % 64), k % 64)
        encoder.uniform(v % (1 + k * k), 1 + k * k)
        encoder.bit(v & 1, 1 + v % 65535)
        encoder.exp_golomb(v >> s)
        encoder.put(v % 40 - 20, tables)
    return encoder.finish()


def lanes_entry(case) -> dict:
    tables, index = case.tables(), case.index()
    symbols = case.symbols(tables)
    return {f"{L} lanes": sha(encode_raw(symbols, tables, index, lanes=L)) for L in (2, 4)}


def long_entry(case) -> dict:
    tables, index = case.tables(), case.index()
    blob = encode_long(case.symbols(tables), tables, index, 320)
    return {"bytes": len(blob), "head": blob[:32].hex(), "sha": sha(blob)}


def quantised_tables(k: int) -> Tables:
    P = 1 + k % 16
    if k % 4 == 3:
        density = Tables.gaussian if k % 8 == 3 else Tables.laplace
        return density([0.05 + 0.37 * k], -40 - k, 30 + k, precision=max(P, 8))
    escape = k % 4 != 0
    n = 1 + numbers(f"n{k}", 1, 400 if escape else min(2**P, 400))[0]
    weights = [spread_weights(f"{k} {t}", n, octaves=8 + k % 22) for t in range(1 + k % 3)]
    for row in weights:
        row[n // 2] += 1
    return Tables.from_weights(weights, P, escape, low=-(n // 2))


def golden() -> dict[str, str]:
    messages = {case.name: message_entry(case) for case in MESSAGES}
    messages["steps"] = {"raw": sha(steps_message()), "bytes": len(steps_message())}
    wide = {case.name: message_entry(case) | lanes_entry(case) for case in WIDE}
    tables = [quantised_tables(k).digest.hex()[:16] for k in range(200)]
    return {
        "coder_v1.json": json.dumps(messages, indent=1) + "\n",
        "lanes_v1.json": json.dumps({c.name: lanes_entry(c) for c in MESSAGES}, indent=1) + "\n",
        "rans32_v1.json": json.dumps({c.name: long_entry(c) for c in MESSAGES}, indent=1) + "\n",
        "wide_v1.json": json.dumps(wide, indent=1) + "\n",
        "tables_v2.json": json.dumps(tables, indent=1) + "\n",
    }

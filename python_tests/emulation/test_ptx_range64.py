# SPDX-License-Identifier: Apache-2.0
"""The PTX that nvcc makes of range64 writes and reads the bytes of the CPU. Needs nvcc, no card."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from emulation import nvcc
from emulation.emulator import aligned
from emulation.ptx_runner import Written, kernel, launch
from emulation.range_cases import GAUSS, drawn, on_cpu, ragged

from otcuda._ops import native
from otcuda.coding import Tables

ARCHITECTURES = ["sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)]
DTYPES = {"u1": 1, "i2": 4, "i4": 6, "i8": 8}  # enum class DType
CALM = [-1, -1, -1]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def ptx(request, nvcc_cache):
    return nvcc.compile_to("range64", request.param, ".ptx", nvcc_cache)[0].read_text()


class Job:
    """The RangeJob of csrc/cuda/range64.cu: arrays by name, and the bytes of the struct."""

    def __init__(self, tables, symbols, index, ends):
        self.shape = native.rans32_shape(tables._native)
        image = np.zeros(self.shape[-1], np.uint32)
        native.rans32_image(tables._native, image)
        n, count = len(symbols), len(ends)
        arrays = {
            "image": image,
            "index": index,
            "symbols": symbols.copy(),
            "ends": ends,
            "data": np.zeros(13 * n + 16 * count, np.uint8),
            "byte_ends": np.zeros(count, np.int64),
            "faults": np.full(3, -1, np.int64),
            "wrong": np.full(1, -1, np.int64),
            "slots": np.zeros(4 * n + 4 * count, np.uint32),
            "sums": np.zeros(count, np.int64),
            "totals": np.zeros(1, np.int64),
        }
        self.arrays = {k: None if v is None else aligned(v) for k, v in arrays.items()}
        self.n, self.count = n, count

    def packed(self) -> bytes:
        T, n, kept, low, P, bits, escape, direct, words = self.shape
        a = {k: 0 if v is None else v.ctypes.data for k, v in self.arrays.items()}
        kinds = [self.arrays[k] for k in ("index", "symbols")]
        index, symbols = (DTYPES["i4" if v is None else v.dtype.str[1:]] for v in kinds)
        searched = T + kept + ((T << bits) + 2) // 2
        return struct.pack(
            "qqqiii??2xPPPB7xPB3xiqqPPqPPPPPP",
            *(T, n, kept, low, P, bits, bool(escape), bool(direct)),
            *(a["image"] + (4 * (words - (T << P)) if direct else 0), a["image"] + 4 * searched),
            *(a["index"], index, a["symbols"], symbols, 100, self.n, self.count, a["ends"]),
            *(a["data"], self.arrays["data"].nbytes, a["byte_ends"], a["faults"], a["wrong"]),
            *(a["slots"], a["sums"], a["totals"]),
        )

    def run(self, text, name, grid, threads, *more):
        touched = [Written(v) for v in self.arrays.values() if v is not None and v.nbytes]
        launch(kernel(text, name), (grid,), threads, [self.packed(), *more], 0, touched)

    def check_ends(self, text, name, total, whole, fault):
        self.run(text, "ends_kernel", 2, 64, self.arrays[name], total, int(whole), fault)


@pytest.mark.parametrize("kind", ["direct", "global"])
@pytest.mark.parametrize("dtype", ["i2", pytest.param("i8", marks=pytest.mark.slow)])
def test_ptx_writes_and_reads_the_bytes_of_the_cpu(kind, dtype, ptx):
    tables = GAUSS if kind == "global" else Tables.gaussian([3.0], -128, 127)
    symbols, index = drawn(7, 180, tables)
    symbols[::40] = 200  # escapes
    symbols, index = symbols.astype(dtype), index.astype("u1")
    ends = ragged(180, 70)
    want, byte_ends = on_cpu(symbols, tables, index, ends)
    job = Job(tables, symbols, index, ends)
    job.check_ends(ptx, "ends", 180, True, 1)
    job.run(ptx, "encode_kernel", 2, 64)
    sums, totals = job.arrays["sums"], job.arrays["totals"]
    launch(kernel(ptx, "sums_kernel"), (1,), 1024, [Written(sums), 70, Written(totals)])
    launch(kernel(ptx, "totals_kernel"), (1,), 1024, [Written(totals), 1])
    job.run(ptx, "compact_kernel", 9, 256)
    assert job.arrays["faults"].tolist() == CALM
    assert job.arrays["byte_ends"].tolist() == byte_ends.tolist()
    assert job.arrays["data"][: len(want)].tobytes() == want
    job.arrays["symbols"][:] = 0
    which = {"direct": 0, "global": 2}[kind]
    job.check_ends(ptx, "byte_ends", len(want), False, 2)
    job.run(ptx, f"decode_kernel\\w*SearchE{which}", 2, 64)
    assert job.arrays["faults"].tolist() == CALM
    np.testing.assert_array_equal(job.arrays["symbols"], symbols)
    job.check_ends(ptx, "byte_ends", len(want) - 1, False, 2)
    assert job.arrays["faults"][0] & 255 == 2
    assert job.arrays["wrong"][0] >= 0


def test_sums_of_over_a_million_messages(ptx):
    """Three rounds of the scan over blocks, which no message test is long enough for."""
    totals = np.random.default_rng(0).integers(0, 2**40, 2500)
    want = np.cumsum(totals) - totals
    launch(kernel(ptx, "totals_kernel"), (1,), 1024, [Written(totals), 2500])
    assert totals.tolist() == want.tolist()

# SPDX-License-Identifier: Apache-2.0
"""The PTX that nvcc makes of rans32 writes and reads the bytes of the CPU. Needs nvcc, no card."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from emulation import nvcc
from emulation.emulator import aligned
from emulation.ptx_runner import Written, kernel, launch
from emulation.rans_cases import GAUSS, drawn, on_cpu

from otcuda._ops import native
from otcuda.coding import Tables

ARCHITECTURES = ["sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)]
DTYPES = {"u1": 1, "i2": 4, "i4": 6, "i8": 8}  # enum class DType
MANGLED = {"u1": "h", "i2": "s", "i4": "i", "i8": "l"}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def ptx(request, nvcc_cache):
    files = ("rans32", "rans32_encode")
    made = (nvcc.compile_to(name, request.param, ".ptx", nvcc_cache)[0] for name in files)
    return "".join(file.read_text() for file in made)


@dataclass
class Job:
    """The RansJob of csrc/cuda/rans32_job.cuh: arrays by name, and the bytes of the struct."""

    tables: Tables
    arrays: dict[str, np.ndarray | None]
    n: int
    block: int

    def packed(self) -> bytes:
        T, n, kept, low, P, bits, escape, direct, _ = native.rans32_shape(self.tables._native)
        a = {k: 0 if v is None else v.ctypes.data for k, v in self.arrays.items()}
        search = T + kept + ((T << bits) + 2) // 2
        index = self.arrays["index"]
        kind = DTYPES["i4" if index is None else index.dtype.str[1:]]
        count = -(-self.n // self.block)
        return struct.pack(
            "qqqiii??2xPPPB7xPqqqPqPPPPPPPq",
            *(T, n, kept, low, P, bits, bool(escape), bool(direct)),
            *(a["image"], a["image"] + 4 * search, a["index"], kind, a["symbols"]),
            *(self.n, self.block, count, a["data"], self.arrays["data"].nbytes),
            *(a["directory"], a["size"], a["faults"], a["offsets"], a["states"], a["words"]),
            *(a["sides"], self.block),
        )

    def run(self, text: str, name: str, grid: int, threads: int, dynamic: int = 0) -> None:
        touched = [Written(v) for v in self.arrays.values() if v is not None and v.nbytes]
        launch(kernel(text, name), (grid,), threads, [self.packed()], dynamic, touched)

    def scan(self, text: str) -> None:
        directory, offsets = self.arrays["directory"], self.arrays["offsets"]
        given = [directory, len(directory), Written(offsets)]
        launch(kernel(text, "offsets_kernel"), (1,), 1024, given)


def job_of(tables, symbols, index, block):
    shape = native.rans32_shape(tables._native)
    image = np.zeros(shape[-1], np.uint32)
    native.rans32_image(tables._native, image)
    n, count = len(symbols), -(-len(symbols) // block)
    arrays = {
        "image": image,
        "index": index,
        "symbols": symbols.copy(),
        "data": np.zeros(count * 132 + 9 * n, np.uint8),
        "directory": np.zeros((count, 3), np.uint32),
        "size": np.zeros(1, np.int64),
        "faults": np.full(3, -1, np.int64),
        "offsets": np.zeros(count + 1, np.int64),
        "states": np.zeros(32 * count, np.uint32),
        "words": np.zeros(block * count, np.uint16),
        "sides": np.zeros(7 * block * count, np.uint8),
    }
    arrays = {k: None if v is None else aligned(v) for k, v in arrays.items()}
    return Job(tables, arrays, n, block)


@pytest.mark.parametrize("search", ["direct", "shared", "global"])
@pytest.mark.parametrize("dtype", ["u1", pytest.param("i4", marks=pytest.mark.slow)])
def test_ptx_writes_and_reads_the_bytes_of_the_cpu(search, dtype, ptx):
    tables = GAUSS if search != "direct" else Tables.gaussian([3.0], -128, 127)
    symbols, index = drawn(7, 333, tables)
    if dtype == "u1":
        symbols = abs(symbols)
        symbols[::40] = 200  # escapes
    else:
        symbols[::40] = -(2**31) + 5
    symbols, index = symbols.astype(dtype), index.astype("u1" if dtype == "u1" else "i8")
    job = job_of(tables, symbols, index, 128)
    directory, blocks = on_cpu(symbols, tables, index, 128)
    job.run(ptx, f"encode_kernelI{MANGLED[dtype]}", 2, 64)
    job.scan(ptx)
    job.run(ptx, "compact_kernel", 1, 64)
    assert job.arrays["faults"].tolist() == [-1, -1, -1]
    np.testing.assert_array_equal(job.arrays["directory"], directory)
    assert job.arrays["data"][: job.arrays["size"][0]].tobytes() == blocks.tobytes()
    job.arrays["symbols"][:] = 0
    which, words = {"direct": (0, 4096), "shared": (1, 30000), "global": (2, 0)}[search]
    job.run(ptx, f"decode_kernelI{MANGLED[dtype]}\\w*SearchE{which}", 2, 64, 4 * words)
    assert job.arrays["faults"].tolist() == [-1, -1, -1]
    np.testing.assert_array_equal(job.arrays["symbols"], symbols)
    job.arrays["data"][130] ^= 1
    job.run(ptx, f"decode_kernelI{MANGLED[dtype]}\\w*SearchE{which}", 2, 64, 4 * words)
    assert job.arrays["faults"][0] >> 8 == 0

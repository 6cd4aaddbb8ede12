# SPDX-License-Identifier: Apache-2.0
"""The AVX-512 files of power_argmax on any CPU, intrinsics done by hand; no tile spills."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import argmax_cases
import numpy as np
import pytest

import otcuda

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"

pytestmark = [
    pytest.mark.slow,  # compiles for some seconds
    pytest.mark.skipif(
        shutil.which("g++") is None or not CSRC.is_dir(), reason="needs g++ and the sources"
    ),
]


FLAGS = ["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# Optimising takes minutes.
BY_HAND = ["-O0", "-shared", "-w", "-DOTCUDA_INLINE=inline", "-DOTCUDA_BY_HAND"]
LEVEL_FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
LEVEL_FLAGS["vnni"] = LEVEL_FLAGS["bf16"] = LEVEL_FLAGS["avx512"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    library = tmp_path_factory.mktemp("avx512") / "panel.so"
    folders = [f"-I{HERE / 'avx512_by_hand'}", f"-I{CSRC}"]
    source = HERE / "avx512_by_hand" / "panel.cpp"
    subprocess.run(["g++", *FLAGS, *BY_HAND, *folders, source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def aligned(shape, dtype):
    """Zeros whose first byte lies at a multiple of 64."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(count + 64, "u1")
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + count].view(dtype).reshape(shape)


def pointers(*arrays):
    return [ctypes.c_void_p(a.ctypes.data) for a in arrays]


def scan(kernel, x, y, h, blocks="wide"):
    """One panel over every block of samples: what power_argmax.cpp does with a level."""
    width = "f32" if x.dtype == np.float32 else "f64"
    block = getattr(kernel, f"{blocks}_samples_{width}")()
    first_number = getattr(kernel, f"first_number_{width}")
    first_number.restype = ctypes.c_int64
    x, y, h = map(np.ascontiguousarray, (x, y, h))
    sizes = ctypes.c_int64(len(y)), ctypes.c_int64(x.shape[1])
    values, indices = np.full(len(x), np.nan, x.dtype), np.full(len(x), -1)
    for begin in range(0, len(x), block):
        part = x[begin : begin + block]
        packed = aligned((x.shape[1], block), x.dtype)
        packed[:, : len(part)] = part.T
        best, place = aligned(block, x.dtype), aligned(block, "i4" if width == "f32" else "i8")
        best[:], place[:] = -np.inf, -1
        getattr(kernel, f"{blocks}_panel_{width}")(
            *pointers(packed, y, h), *sizes, *pointers(best, place)
        )
        found = slice(begin, begin + len(part))
        getattr(kernel, f"{blocks}_settle_{width}")(
            *pointers(part, y, h),
            ctypes.c_int64(len(part)),
            *sizes,
            *pointers(best, place, values[found], indices[found]),
        )
        for b in np.flatnonzero(place[: len(part)] < 0):
            indices[begin + b] = first_number(*pointers(part[b], y, h), *sizes)
            if indices[begin + b] >= 0:
                values[begin + b] = -np.inf
    return values, indices


@pytest.mark.parametrize("blocks", ["wide", "narrow"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_golden_cases_have_the_bits_of_the_portable_level(kernel, dtype, blocks):
    otcuda.set_simd_level("portable")
    shapes = [shape for shape in argmax_cases.SHAPES if np.prod(shape) < 200_000]
    for name, *arrays in argmax_cases.cases(shapes):
        x, y, h = (a.astype(dtype) for a in arrays)
        value, index = scan(kernel, x, y, h, blocks)
        want_value, want_index = otcuda.power_argmax(x, y, h)
        assert index.tolist() == want_index.tolist(), name
        numbers = ~np.isnan(want_value)
        assert value[numbers].tobytes() == want_value[numbers].tobytes(), name
        assert np.isnan(value[~numbers]).all(), name
    otcuda.set_simd_level("auto")


@pytest.mark.parametrize("N", range(1, 14))
def test_every_remainder_of_targets(kernel, N):
    rng = np.random.default_rng(N)
    x, y, h = (rng.integers(-8, 9, size).astype("f4") for size in ((130, 3), (N, 3), N))
    value, index = scan(kernel, x, y, h)
    want_value, want_index = otcuda.power_argmax(x, y, h)
    assert index.tolist() == want_index.tolist()
    assert value.tolist() == want_value.tolist()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_few_samples_in_lanes_of_targets(kernel, dtype):
    width = "f32" if dtype == "f4" else "f64"
    lanes = getattr(kernel, f"few_lanes_{width}")()
    rng = np.random.default_rng(0)
    for B, N, D in [(1, 5, 16), (2, 33, 17), (4, 40, 31), (7, 100, 3), (8, 64, 40)]:
        x, y, h = (rng.integers(-8, 9, size).astype(dtype) for size in ((8, D), (N, D), N))
        best, place = aligned((8, 16), dtype), aligned((8, 16), "i4" if dtype == "f4" else "i8")
        best[:], place[:] = -np.inf, -1
        sizes = map(ctypes.c_int64, (B, N, D))
        spare = np.zeros((16, D + 1), dtype)
        getattr(kernel, f"few_{width}")(*pointers(x, y, h), *sizes, *pointers(spare, best, place))
        scores = x[:B] @ y.T + h  # exact
        assert best[:B, :lanes].max(1).tolist() == scores.max(1).tolist()
        found = np.where(best == best.max(1)[:, None], place + np.arange(16), N)[:B, :lanes]
        assert found.min(1).tolist() == scores.argmax(1).tolist()


def inner_loops(path):
    """Instructions of each innermost loop, by the jumps back in the disassembly."""
    text = subprocess.check_output(["objdump", "-d", "--no-show-raw-insn", path], text=True)
    lines = re.findall(r"^\s+([0-9a-f]+):\t(.*)$", text, re.MULTILINE)
    place = {int(address, 16): k for k, (address, _) in enumerate(lines)}
    for k, (address, instruction) in enumerate(lines):
        jump = re.match(r"j\w+\s+([0-9a-f]+)", instruction)
        if jump and int(jump[1], 16) <= int(address, 16) and int(jump[1], 16) in place:
            body = [instruction for _, instruction in lines[place[int(jump[1], 16)] : k]]
            if not any(re.match("j", instruction) for instruction in body):
                yield body


@pytest.fixture(scope="module", params=["avx2", "avx512"])
def loops(request, tmp_path_factory):
    """The level's innermost loops, as they are built."""
    source = CSRC / "cpu" / f"power_argmax_{request.param}.cpp"
    target = tmp_path_factory.mktemp("loops") / "kernel.o"
    flags = [*FLAGS, *LEVEL_FLAGS[request.param], "-O3", f"-I{CSRC}"]
    subprocess.run(["g++", *flags, "-c", source, "-o", target], check=True)
    return request.param, list(inner_loops(target))


def spills(body):
    """Vectors that are stored, and that are read from the stack."""
    vector = r"v\w+\s.*"
    store, read = r"vmov\w+\s+%[xyz]mm\d+,.*\(", vector + r"\(%rsp"
    return [line for line in body if re.match(f"{store}|{read}", line)]


def multiply_adds(body):
    return sum("vfmadd" in instruction for instruction in body)


def test_the_tile_of_power_argmax_stays_in_registers(loops):
    level, loops = loops
    sums = {"avx2": 12, "avx512": 24}[level]
    tiles = []  # whole ones: of the plain loop, and of a chunk of many dimensions
    for body in loops:
        unrolled = any("vmul" in instruction for instruction in body)  # a whole low dimension
        ahead = any("prefetch" in instruction for instruction in body)  # of few samples
        if multiply_adds(body) == sums and not unrolled and not ahead:
            tiles.append(len(body))
            assert not spills(body)
            assert not any("(%rsp" in line for line in body)
            assert len(body) < 2 * sums
    assert len(tiles) == 4  # float and double


def test_tiles_of_few_samples_stay_in_registers(loops):
    level, loops = loops
    ahead = [body for body in loops if any("prefetch" in line for line in body)]
    assert not any(map(spills, ahead))
    # Four columns with 1, 2, 4, 8 samples (in AVX-512 two tiles), two dimensions of a narrow tile.
    narrow = {"avx2": {24}, "avx512": {64, 24, 48}}[level]
    assert {multiply_adds(body) for body in ahead} == {4, 8, 16, 32} | narrow


# --- the screen


@pytest.fixture(scope="module", params=["avx512", "vnni", "bf16"])
def screen(request, tmp_path_factory):
    """The kernel, and its level."""
    library = tmp_path_factory.mktemp("avx512") / "screen.so"
    folders = [f"-I{HERE / 'avx512_by_hand'}", f"-I{CSRC}"]
    source = HERE / "avx512_by_hand" / "screen.cpp"
    flags = [*FLAGS, *BY_HAND, f"-DOTCUDA_{request.param.upper()}", *folders]
    subprocess.run(["g++", *flags, source, "-o", library], check=True)
    found = ctypes.CDLL(str(library))
    found.screen_panel.restype = ctypes.c_int64
    return found, request.param


def bfloat16(integers):
    """Their bytes, of integers that need eight bits."""
    return (integers.astype("f4").view("u4") >> 16).astype("u2")


@pytest.mark.parametrize("steps", [1, 4, 8, 9, 16, 19])
def test_pairs_above_their_thresholds(screen, steps):
    rng = np.random.default_rng(steps)
    screen, level = screen
    S, T = screen.screen_samples(), 4 * screen.screen_targets()
    each = 2 if level == "bf16" else 4  # coordinates of a step
    # Norms that sixteen bits hold, sums with the offset that they do not.
    most, offset = {"avx512": (20, 64), "vnni": (127, 128), "bf16": (127, 128)}[level]
    q, r = (rng.integers(-m, m + 1, (n, each * steps)) for m, n in ((most, S), (127, T)))
    q[0, :2], r[0, :2] = offset - 1, 127
    x, y = aligned((steps, S, 4), "u1"), aligned((T, 4 * steps), "i1")
    if level == "bf16":
        x.view("u2")[:] = bfloat16(q).reshape(S, steps, 2).transpose(1, 0, 2)
        y.view("u2")[:] = bfloat16(r)
    else:
        x[:], y[:] = (q + offset).reshape(S, steps, 4).transpose(1, 0, 2), r
    sums = -(-steps // 8)
    halves = np.zeros((T, sums, 2), np.int64)
    for k in range(each * steps):
        halves[:, k // 32, k // 2 % 2] -= 64 * r[:, k]
    start = np.ascontiguousarray(halves.astype("i2")).view("i4")[..., 0].copy()
    bound = rng.integers(-10_000, 10_000, T).astype("i4")
    want = r @ q.T + bound[:, None]  # [T, S]
    threshold = aligned(S, "i4")
    threshold[:] = np.quantile(want, 0.9, axis=0)
    before = threshold.copy()
    hits = np.zeros((T * S, 3), "i4")
    if level == "vnni":  # its share of the sums is in the bound
        bound -= (offset * r.sum(1)).astype("i4")
    sizes = ctypes.c_int64(T), ctypes.c_int64(steps)
    count = screen.screen_panel(*pointers(x, y, start, bound), *sizes, *pointers(threshold, hits))
    found = {(t, s, value) for t, s, value in hits[:count].tolist()}
    expected = {(t, s, int(want[t, s])) for t, s in np.argwhere(want > before).tolist()}
    assert len(expected) > T
    assert found == expected


@pytest.mark.parametrize(
    ("level", "sums"),
    [("avx2", 12), ("avx512", 24), ("vnni", 24), ("vnni", 12), ("bf16", 24), ("bf16", 12)],
)
def test_the_tile_of_power_screen_stays_in_registers(level, sums, tmp_path):
    source, target = CSRC / "cpu" / f"power_screen_{level}.cpp", tmp_path / "kernel.o"
    flags = [*FLAGS, *LEVEL_FLAGS[level], "-O3", f"-I{CSRC}"]
    subprocess.run(["g++", *flags, "-c", source, "-o", target], check=True)
    loops = 0
    for body in inner_loops(target):
        if sum(bool(re.search("vpmaddubsw|vpdpbusd|vdpbf16ps", line)) for line in body) != sums:
            continue
        loops += 1
        assert not any(re.match(r"vmov\w+\s+%[xyz]mm\d+,.*\(", line) for line in body)
        narrow = level in ("vnni", "bf16") and sums == 12  # more rows than registers for addresses
        assert not any("(%rsp" in line and ("mm" in line or not narrow) for line in body)
        assert len(body) < 3.5 * sums
    assert loops >= (2 if level in ("vnni", "bf16") else 4)

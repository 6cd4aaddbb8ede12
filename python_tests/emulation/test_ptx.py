# SPDX-License-Identifier: Apache-2.0
"""The PTX that nvcc makes of csrc/cuda gives the bits of the contract. Needs nvcc, no card."""

from __future__ import annotations

import re
import struct

import argmax_cases
import exact
import mass_cases
import numpy as np
import pytest
from emulation import nvcc
from emulation.emulator import aligned
from emulation.ptx_runner import PtxError, Written, kernel, launch

ARCHITECTURES = ["sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def ptx(request, nvcc_cache):
    """Name of a .cu file -> its PTX."""
    return lambda name: nvcc.compile_to(name, request.param, ".ptx", nvcc_cache)[0].read_text()


def ceil_div(a, b):
    return -(-a // b)


def packed(text, rows):
    """Panels of rows, as pack_panels_kernel makes them."""
    n, D = rows.shape
    panels = aligned(np.full((ceil_div(n, 128), D, 128), np.nan, np.float32))
    if D:
        grid = (4 * len(panels), ceil_div(D, 32))
        launch(kernel(text, "pack_panels"), grid, 256, [rows, n, D, Written(panels)])
    return panels


def ptx_power_argmax(text, x, y, h, shares):
    """Value, index and counts of the five kernels of a float32 call."""
    (B, D), N = x.shape, len(y)
    x, y, h = map(aligned, (x, y, h))
    x_panels, y_panels = packed(text, x), packed(text, y)
    heights = aligned(np.zeros(128 * len(y_panels), np.float32))
    launch(kernel(text, "pack_heights"), (len(y_panels),), 128, [h, N, Written(heights)])
    keys = aligned(np.zeros(B, np.uint64))
    tile = [x_panels, y_panels, heights, B, len(y_panels), D, Written(keys), None]
    launch(kernel(text, "tile_kernel"), (len(x_panels), shares), 256, tile)
    value, index = np.zeros(B, np.float32), np.zeros(B, np.int64)
    counts = np.zeros(N, np.uint64)
    winners = struct.pack("PPPP", *(a.ctypes.data for a in (value, index, counts)), 0)
    outputs = [Written(a) for a in (value, index, counts)]
    winner = [x_panels, y_panels, heights, B, N, D, keys, winners, None]
    launch(kernel(text, "winner_kernel"), (ceil_div(B, 32),), 256, winner, touched=outputs)
    return value, index, counts


@pytest.mark.parametrize(
    ("name", "shares"),
    [("many duplicates", 2), ("not numbers", 1), ("dead behind nan", 1), ("signed zeros", 2)],
)
def test_power_argmax(name, shares, ptx):
    x, y, h = argmax_cases.hard_case(name)
    x = x[:70]
    value, index, counts = ptx_power_argmax(ptx("power_argmax"), x, y, h, shares)
    want_value, want_index = exact.power_argmax(x, y, h)
    np.testing.assert_array_equal(index, want_index)
    assert ((value.view("u4") == want_value.view("u4")) | np.isnan(want_value)).all()
    assert (counts == np.bincount(index[index >= 0], minlength=len(y))).all()


def test_power_argmax_with_full_and_cut_slices(ptx):
    x, y, noise = argmax_cases.base((130, 260, 37))
    value, index, _ = ptx_power_argmax(ptx("power_argmax"), x, y, noise, 2)
    want_value, want_index = exact.power_argmax(x, y, noise)
    assert (index == want_index).all()
    assert value.tobytes() == want_value.tobytes()


def test_power_argmax_float64(ptx):
    text = ptx("power_argmax")
    x, y, h = argmax_cases.hard_case("dead behind nan", "f8")
    (B, D), N, shares = x.shape, len(y), 3
    values, indices = np.zeros((shares, B)), np.zeros((shares, B), np.int64)
    plain = [x, y, h, B, N, D, Written(values), Written(indices)]
    launch(kernel(text, "plain_kernel"), (1, shares), 128, plain)
    value, index = np.zeros(B), np.zeros(B, np.int64)
    winners = struct.pack("PPPP", value.ctypes.data, index.ctypes.data, 0, 0)
    outputs = [Written(value), Written(index)]
    merge = [values, indices, B, shares, winners]
    launch(kernel(text, "merge_kernel"), (1,), 128, merge, touched=outputs)
    want_value, want_index = exact.power_argmax(x, y, h)
    assert (index == want_index).all()
    assert np.array_equal(value, want_value, equal_nan=True)


@pytest.mark.parametrize("name", ["few cells", "many cells"])
def test_cell_mass_counts(name, ptx):
    index, N, _ = mass_cases.case(name)
    mass, stray = np.zeros(N, np.uint64), np.full(1, 2**64 - 1, np.uint64)
    index[5] = N
    shared = N * 4 <= 48 << 10
    which = "shared_counts_kernel" if shared else "mass_counts_kernel"
    args = [index, len(index), N, Written(mass), Written(stray)]
    launch(kernel(ptx("cell_mass"), which), (2,), 512, args, dynamic=4 * N if shared else 0)
    index[5] = -1
    assert (mass == exact.cell_mass(index, N)).all()
    assert stray[0] == 5


@pytest.mark.parametrize("name", ["float32", "subnormal weights", "huge weights"])
def test_cell_mass_sums(name, ptx):
    text = ptx("cell_mass")
    index, N, weights = mass_cases.case(name)
    mangled = "f" if weights.dtype == np.float32 else "d"
    B = len(index)
    largest, infinite, stray = np.zeros(1, "u8"), *(np.full(1, 2**64 - 1, "u8") for _ in range(2))
    sums, mass = np.zeros(N, np.uint64), np.zeros(N, weights.dtype)
    first = [weights, B, Written(largest), Written(infinite)]
    launch(kernel(text, f"largest_kernelI{mangled}"), (1,), 512, first)
    second = [index, weights, B, N, largest, Written(sums), Written(stray)]
    launch(kernel(text, f"sums_kernelI{mangled}Lb1"), (2,), 512, second, dynamic=8 * N)
    third = [sums, B, N, largest, Written(mass)]
    launch(kernel(text, f"values_kernelI{mangled}"), (ceil_div(N, 512),), 512, third)
    assert mass.tobytes() == exact.cell_mass(index, N, weights).tobytes()


def adam_constants(dtype, lr, step):
    """AdamConstants of common/heights_adam_step.h as bytes, for powers that need one product."""
    left1, left2 = 1 - 0.9**step, 1 - 0.999**step
    return np.array([0.9, 1 - 0.9, 0.999, 1 - 0.999, lr / left1, 1 / left2, 1e-8]).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_heights_adam_step(dtype, ptx):
    rng = np.random.default_rng(0)
    h, m, v, mass, nu = np.abs(rng.normal(size=(5, 300))).astype(dtype)
    want = [a.copy() for a in (h, m, v)]
    pytest.importorskip("otcuda").heights_adam_step(*want, mass, nu, 1, lr=0.03)
    constants = adam_constants(dtype, 0.03, 1).tobytes()
    args = [mass, nu, 300, constants, Written(h), Written(m), Written(v)]
    mangled = {"f4": "f", "f8": "d"}[dtype]
    launch(kernel(ptx("heights_adam_step"), f"step_kernelI{mangled}"), (2,), 256, args)
    for got, expected in zip((h, m, v), want, strict=True):
        assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("counted_there", [False, True])
@pytest.mark.parametrize("name", ["normal", "uniform", "gaussian_cdf"])
def test_source_samples(name, counted_there, ptx):
    B, D, offset = 70, 7, 3
    want = np.empty((B, D), "f4")
    pytest.importorskip("otcuda").source_samples(want, name, seed=9, stream=5, offset=offset)
    source = ["normal", "uniform", "gaussian_cdf"].index(name)
    base = np.array([3])
    stream, where = (2, base.ctypes.data) if counted_there else (5, 0)
    text, sequence = (
        ptx("source_samples"),
        struct.pack("iiQQQP", source, 0, 9, stream, offset, where),
    )
    out, touched = np.zeros((B, D), np.float32), [Written(base)]
    rows = [sequence, offset * D, B * D, Written(out)]
    launch(kernel(text, "rows_kernelIf"), (1,), 256, rows, touched=touched)
    assert out.tobytes() == want.tobytes()
    panels = np.full((1, D, 128), np.nan, np.float32)
    given = [sequence, B, D, Written(panels)]
    launch(kernel(text, "panels_kernel"), (1, 2), 128, given, touched=touched)
    place = [r // 8 * 4 + r % 4 + r // 4 % 2 * 64 for r in range(B)]
    assert (panels[0, :, place] == want).all()


def adam_step(dtype: str, base: np.ndarray | None) -> bytes:
    """AdamStep<T> of heights_adam_solve.cu, of step 1 on the host or the one behind base."""
    known = adam_constants(dtype, 0.03, 1).tobytes() if base is None else b""
    where = 0 if base is None else base.ctypes.data
    layout = {"f4": "28s4x4d?7xPq", "f8": "56s4d?7xPq"}[dtype]
    return struct.pack(layout, known, 0.03, 0.9, 0.999, 1e-8, True, where, 1)


@pytest.mark.parametrize("counted_there", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_heights_adam_solve_kernels(dtype, counted_there, ptx):
    """One step from given counts, chi2 of it, and the centring."""
    N, batch = 1100, 700
    text, mangled = ptx("heights_adam_solve"), {"f4": "f", "f8": "d"}[dtype]
    rng = np.random.default_rng(2)
    nu = rng.dirichlet(np.ones(N)).astype(dtype)
    counts = rng.multinomial(batch, np.ones(N) / N).astype(np.uint64)
    h, m, v = rng.normal(size=(3, N)).astype(dtype)
    v, h[7] = np.abs(v), -np.inf
    want = [a.copy() for a in (h, m, v)]
    mass = (counts / batch).astype(dtype)
    pytest.importorskip("otcuda").heights_adam_step(*want, mass, nu, 1, lr=0.03)
    packed_heights = np.zeros(1152, np.float32)
    state = (h, m, v, packed_heights) if dtype == "f4" else (h, m, v)
    pointers = struct.pack("PPPP", *(a.ctypes.data for a in state), *[0] * (4 - len(state)))
    sums, chi2 = np.zeros((1, 2)), np.zeros(1)
    terms = counts * (counts - 1.0) / nu.astype("f8")
    base = np.array([0]) if counted_there else None
    step = [Written(counts), nu, N, batch, adam_step(dtype, base), pointers]
    outputs = [Written(a) for a in (*state, *([base] if counted_there else []))]
    step_kernel = kernel(text, f"solve_step_kernelI{mangled}")
    launch(step_kernel, (2,), 1024, [*step, Written(sums)], touched=outputs)
    launch(kernel(text, "chi2_kernel"), (1,), 32, [sums, N, batch, 1, Written(chi2)])
    for got, expected in zip((h, m, v), want, strict=True):
        assert got.tobytes() == expected.tobytes()
    assert not counts.any()
    total = np.cumsum(terms[:1024])[-1] + np.cumsum(terms[1024:])[-1]  # cumsum adds in order
    assert chi2[0] == total / (batch * (batch - 1.0)) - 1
    mean_sums = np.zeros((2, 2))
    where = base.ctypes.data if counted_there else 0
    sum_kernel = kernel(text, f"sum_kernelI{mangled}")
    centre = kernel(text, f"centre_kernelI{mangled}")
    for now in (255, 256) if counted_there else (256,):  # only the last one centres
        if counted_there:
            base[0] = now - 1
        number = struct.pack("Pq", where, 1 if counted_there else now)
        args = [h, N, number, Written(mean_sums[0]), Written(mean_sums[1])]
        launch(sum_kernel, (2,), 1024, args, touched=outputs[-1:])
        assert mean_sums.any() == (now == 256)
        args = [mean_sums[0], mean_sums[1], N, number, pointers]
        launch(centre, (2,), 1024, args, touched=outputs)
    finite = np.where(np.isfinite(want[0]), want[0], 0).astype("f8")
    mean = (np.cumsum(finite[:1024])[-1] + np.cumsum(finite[1024:])[-1]) / (N - 1)
    assert h.tobytes() == (want[0] - mean).astype(dtype).tobytes()
    if dtype == "f4":
        place = [r // 8 * 4 + r % 4 + r // 4 % 2 * 64 for r in range(128)]
        assert packed_heights.reshape(-1, 128)[:, place].reshape(-1)[:N].tobytes() == h.tobytes()


PLANTED = {
    "a wait that waits for nothing": (r"wait_group 1;", "wait_group 3;"),
    "the wrong source": (r"(cp\.async\.cg\S+ \[%r\d+\], \[%rd\d+)\]", r"\1+16]"),
    "the wrong target": (r"(cp\.async\.cg\S+ \[%r\d+)\]", r"\1+16]"),
    "fewer bytes": (r"(cp\.async\.cg.*), 16;", r"\1, 8;"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_wrong_inline_ptx_is_found(name, nvcc_cache):
    """The emulator has its own body of cp_async16: only here are the asm strings seen."""
    text = nvcc.compile_to("power_argmax", "sm_80", ".ptx", nvcc_cache)[0].read_text()
    x, y, noise = argmax_cases.base((20, 140, 18))
    wrong, count = re.subn(*PLANTED[name], text)
    assert count >= 1
    try:
        _, index, _ = ptx_power_argmax(wrong, x, y, noise, 1)
    except PtxError:
        return
    assert (index != exact.power_argmax(x, y, noise)[1]).any()

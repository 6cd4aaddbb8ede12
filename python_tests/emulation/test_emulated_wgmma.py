# SPDX-License-Identifier: Apache-2.0
"""Products of warpgroups, byte-counting barriers and bulk copies: right as NumPy, bugs found."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.emulator import EmulationError, Output, aligned

TILES, ROWS = 5, 64
PLANTED = {  # bug of planted_wgmma.cu: what the diagnosis must say
    "no_product_wait": "reads .* the sums of the wgmma .* which may still be running",
    "newest_left": "reads .* the sums of the wgmma .* which may still be running",
    "no_product_fence": "after the last wgmma_fence",
    "no_full_wait": "may still be in flight|before anyone wrote it|race on",
    "no_empty_wait": "race on|over what the bulk copy|expects no more than",
    "early_release": "race on",
    "too_few_bytes": "more bytes than expected",
    "too_many_bytes": "deadlock.* at mbarrier_wait",
    "wrong_parity": "may still be in flight|before anyone wrote it|deadlock",
    "no_sync_after_init": "whose initialisation by thread 0 may come later|nobody initialised",
    "no_proxy_fence": "passed no fence_proxy_async",
    "changed_operand": "writes .* an operand of the wgmma",
    "unaligned_tile": "does not begin where its swizzle does",
    "misaligned_copy": "misaligned",
    "warp_without_product": "different numbers of wgmma",
    "other_tile": "name different tiles",
    "too_many_arrivals": "expects no more than 1 arrivals|more bytes|race|in flight|over what",
    "copy_left": "exits while the bulk copy|nobody waited",
    "product_left": "exits while its wgmma",
    "written_tile": "which thread 0 wrote|race on",
    "copy_over_copy": "over what the bulk copy",
    "own_data_unawaited": "may still be in flight|before anyone wrote it",
}
BUGS = {name: k for k, name in enumerate(PLANTED, 1)}


def bfloat16(values):
    """Numbers that bfloat16 holds, and their bits."""
    bits = (values.astype("f4").view("u4") >> 16).astype("u2")
    return (bits.astype("u4") << 16).view("f4"), bits


def swizzled(bits, swizzle):
    """Rows in the pattern of one of the three swizzles: 16 bytes of a row change places."""
    chunks = 16 >> swizzle
    rows, places = np.arange(ROWS)[:, None], np.arange(chunks)
    turn = (rows * chunks // 8) % chunks  # which 128 bytes, within the pattern
    packed = np.empty((ROWS, chunks, 8), "u2")
    packed[rows, places ^ turn] = bits.reshape(ROWS, chunks, 8)
    return packed.reshape(ROWS, -1)


def products(emulator, bug=0, swizzle=1, **settings):
    """The sums of the kernel, [tiles, 64, 64], and the exact ones."""
    rng, K = np.random.default_rng(swizzle), 128 >> swizzle
    a, a_bits = bfloat16(rng.integers(-9, 10, (ROWS, K)))
    b = rng.integers(-9, 10, (TILES, ROWS, K)).astype("f4")
    b[:, :, ::16] = 1 + rng.integers(0, 2, (TILES, ROWS, 1)) / 128  # the second is odd
    b, b_bits = bfloat16(b)
    out = Output(aligned(np.zeros((TILES, ROWS, ROWS), "f4")), partly=bug > 0)
    tiles = aligned(np.stack([swizzled(tile, swizzle) for tile in b_bits]))
    limits = {"most_accesses": 3_000_000, **settings}
    emulator.call("planted_wgmma", bug, swizzle, aligned(a_bits), tiles, out, **limits)
    return out.array, np.einsum("ik,tjk->tij", a, b) + np.arange(TILES)[:, None, None]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("swizzle", [1, 2, 3])
def test_products_are_those_of_numpy(swizzle, seed, emulator):
    """Small numbers: every sum is exact."""
    got, want = products(emulator, swizzle=swizzle, seed=seed, preempt=50 * seed)
    np.testing.assert_array_equal(got, want)


def test_a_sum_can_be_as_wrong_as_documented(emulator):
    """Both ways, and where the first number of a column is odd, up; each of four steps adds."""
    exact = products(emulator)[1]
    errors = {kind: products(emulator, mma_error=kind)[0] - exact for kind in (1, -1, 2, 3)}
    assert (errors[1] >= 0).all()
    assert (errors[-1] <= 0).all()
    assert 0.4 < (errors[2] > 0).mean() < 0.6
    by_column = errors[3].transpose(0, 2, 1).reshape(TILES * ROWS, ROWS)
    up = (by_column > 0).all(1)
    assert (up | (by_column < 0).all(1)).all()
    assert 0.3 < up.mean() < 0.7
    sizes = 4 * (64 * 81 + TILES)  # no product is larger than 81
    assert 2.0**-17 * 10 < abs(errors[1]).max() < 2.0**-17 * sizes


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bug_is_found(bug, seed, emulator):
    with pytest.raises(EmulationError, match=PLANTED[bug]):
        products(emulator, BUGS[bug], seed=seed)

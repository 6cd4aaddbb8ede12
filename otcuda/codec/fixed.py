# SPDX-License-Identifier: Apache-2.0
"""The `fixed` mode: codes of constant length, no entropy coder; heights from optimal transport.

Latents in tiles of 4 x 4 positions (64 pixels) -> orthonormal 4 x 4 DCT of every channel -> groups
of coefficients of like variance -> a codebook of 2^b codes a group. Balanced heights make every
code equally likely, so that b bits say as much as they can. A damaged bit harms one group of one
tile.

Bits are shared out by reverse water-filling: b_i = max(0, log2(var_i / theta) / 2).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from otcuda._power import power_argmax
from otcuda.codec.bitstream import too_little
from otcuda.codec.quantiser import balanced_heights, nearest_heights
from otcuda.errors import ArgumentError, CorruptDataError

TILE = 4  # latent positions along the edge of a tile
GROUP_BITS = 9.0  # codebooks are grown to about so many bits
LARGEST_BITS = 10
LLOYD_ITERATIONS = 12

# Orthonormal DCT-II of four points: rows are frequencies. Written out, since cos differs between
# machines in its last bit: cos(pi / 8) / sqrt 2 and cos(3 pi / 8) / sqrt 2.
_A, _B = 0.6532814824381883, 0.27059805007309851
_DCT = np.array([[0.5] * 4, [_A, _B, -_B, -_A], [0.5, -0.5, -0.5, 0.5], [_B, -_A, _A, -_B]])

Arrays = Mapping[str, np.ndarray]


def tile_coefficients(latents: np.ndarray) -> np.ndarray:
    """DCT coefficients of tiles: [M, h, w] to [h/4 w/4, 16 M], channels slowest."""
    M, h, w = latents.shape
    tiles = latents.reshape(M, h // TILE, TILE, w // TILE, TILE)
    spectrum = np.einsum("fa,mxayb,gb->xymfg", _DCT, tiles, _DCT, optimize=True)
    return np.ascontiguousarray(spectrum.reshape(-1, M * TILE * TILE), np.float32)


def tile_latents(coefficients: np.ndarray, M: int, h: int, w: int) -> np.ndarray:
    """Inverse of `tile_coefficients`: [M, h, w], float32; sums in one order on every machine."""
    spectrum = coefficients.reshape(h // TILE, w // TILE, M, TILE, TILE).astype(np.float64)
    rows = _inverse_dct(spectrum, 3)  # [x, y, m, a, g]
    tiles = _inverse_dct(rows, 4).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(tiles.reshape(M, h, w), np.float32)


def _inverse_dct(spectrum: np.ndarray, axis: int) -> np.ndarray:
    """Four points out of four frequencies along an axis, added one after the other."""
    parts = [spectrum.take(f, axis) for f in range(TILE)]
    points = []
    for a in range(TILE):
        total = _DCT[0, a] * parts[0]
        for f in range(1, TILE):
            total = total + _DCT[f, a] * parts[f]
        points.append(total)
    return np.stack(points, axis)


def table_numbers(part: Arrays) -> list[int]:
    """Numbers of the bit tables that the weights hold, from few bits to many."""
    return sorted(int(name.split(".")[0]) for name in part if name.endswith(".bits"))


def payload_bytes(part: Arrays, number: int, shape: tuple[int, int]) -> int:
    """Bytes of a payload: bits of a tile times tiles, whatever the picture shows."""
    tiles = -(-shape[0] // 64) * -(-shape[1] // 64)
    return -(-int(part[f"{number}.bits"].sum()) * tiles // 8)


def choose_table(part: Arrays, shape: tuple[int, int], budget: int | None, head: int = 0) -> int:
    """The richest table whose file has at most `budget` bytes; None takes the richest.

    Args:
        part: the model's tensors `fixed.*`.
        shape: height and width of the picture.
        budget: bytes of the file.
        head: bytes of the file before its payload.

    Raises:
        BudgetError: not even the poorest fits.
        ArgumentError: the weights hold no codebooks.
    """
    numbers = table_numbers(part)
    if not numbers:
        raise ArgumentError("these weights hold no codebooks for mode='fixed'")
    if budget is None:
        return numbers[-1]
    fitting = [n for n in numbers if head + payload_bytes(part, n, shape) <= budget]
    if not fitting:
        least = head + payload_bytes(part, numbers[0], shape)
        raise too_little(budget, shape, least, " in mode 'fixed'")
    return fitting[-1]


def encode(part: Arrays, latents: np.ndarray, number: int, rule: str = "balanced") -> bytes:
    """Payload of latents [M, h, w]: for each tile the indices of its groups, high bits first.

    Args:
        part: the model's tensors `fixed.*`.
        latents: orthonormal units.
        number: of the bit table.
        rule: "balanced" (the heights of the table: each index equally likely) or "nearest".
    """
    coefficients = tile_coefficients(latents)
    bits = part[f"{number}.bits"]
    indices = [
        power_argmax(np.ascontiguousarray(coefficients[:, columns]), y, heights)[1]
        for columns, y, heights in _ruled(_groups(part, number), rule)
    ]
    stream = [
        (index[:, None] >> np.arange(b - 1, -1, -1)) & 1
        for index, b in zip(indices, bits.tolist(), strict=True)
    ]
    return np.packbits(np.concatenate(stream, 1).astype(np.uint8).ravel()).tobytes()


def decode(
    part: Arrays, payload: bytes, number: int, shape: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Latents [M, h, w] of a payload, and the index of the step that the synthesis is told.

    Raises:
        CorruptDataError: no such table, or a payload of another length.
    """
    if number not in table_numbers(part):
        raise CorruptDataError(f"the file asks for bit table {number}, the model has none such")
    wanted = payload_bytes(part, number, shape)
    if len(payload) != wanted:
        raise CorruptDataError(f"the payload has {len(payload)} bytes, it should have {wanted}")
    h, w = -(-shape[0] // 64) * TILE, -(-shape[1] // 64) * TILE
    tiles = h * w // TILE**2
    bits = part[f"{number}.bits"].astype(int)
    total = int(bits.sum())
    stream = np.unpackbits(np.frombuffer(payload, np.uint8))[: tiles * total].reshape(tiles, total)
    M = int(part[f"{number}.channels"])
    coefficients = np.zeros((tiles, M * TILE**2), np.float32)
    coefficients[:] = part[f"{number}.mean"].astype(np.float32)
    ends = np.cumsum(bits)
    for (columns, y, _), b, end in zip(_groups(part, number), bits, ends, strict=True):
        index = stream[:, end - b : end].astype(np.int64) @ (1 << np.arange(b - 1, -1, -1))
        coefficients[:, columns] = y[index]
    return tile_latents(coefficients, M, h, w), int(part[f"{number}.step"])


def _groups(part: Arrays, number: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Columns, codes [K, d] and heights [K] of every group."""
    sizes = part[f"{number}.sizes"].astype(int)
    bits = part[f"{number}.bits"].astype(int)
    columns = np.split(part[f"{number}.columns"].astype(np.int64), np.cumsum(sizes)[:-1])
    codes = np.split(part[f"{number}.y"].astype(np.float32), np.cumsum(sizes << bits)[:-1])
    heights = np.split(part[f"{number}.heights"], np.cumsum(1 << bits)[:-1])
    return [
        (c, np.ascontiguousarray(y.reshape(1 << b, d)), np.ascontiguousarray(h))
        for c, y, h, d, b in zip(columns, codes, heights, sizes, bits, strict=True)
    ]


def _ruled(groups: list, rule: str) -> list:
    """The groups with the heights of a rule."""
    if rule == "balanced":
        return groups
    return [(columns, y, nearest_heights(y)) for columns, y, _ in groups]


def allocate(variance: np.ndarray, bits: int) -> list[tuple[np.ndarray, int]]:
    """Groups of coefficients and their whole bits by reverse water-filling.

    Args:
        variance: of each coefficient, [n].
        bits: to be shared out over one tile.

    Returns:
        (columns, bits) of each group, the strongest first; the bits sum to `bits`.
    """
    order = np.argsort(-variance, kind="stable")
    logs = 0.5 * np.log2(np.maximum(variance[order], 1e-12))
    # With the n strongest in use the water stands at (sum of their logs - bits) / n.
    counts = np.arange(1, len(order) + 1)
    water = (np.cumsum(logs) - bits) / counts
    used = int(counts[logs > water][-1])
    share = logs[:used] - water[used - 1]
    groups, start, owed = [], 0, 0.0
    for end in range(1, used + 1):
        ahead = owed + share[start:end].sum()
        more = end < used and ahead + share[end] <= LARGEST_BITS
        if end < used and (ahead < GROUP_BITS - 0.5 and more):
            continue
        whole = min(LARGEST_BITS, max(1, round(ahead)))
        groups.append((order[start:end], whole))
        owed, start = ahead - whole, end
    return _trimmed(groups, bits)


def _trimmed(groups: list[tuple[np.ndarray, int]], bits: int) -> list[tuple[np.ndarray, int]]:
    """The same groups with bits moved so that they sum to `bits` exactly."""
    columns, shares = [g[0] for g in groups], [g[1] for g in groups]
    for k in itertools.cycle(reversed(range(len(groups)))):
        missing = bits - sum(shares)
        if missing == 0:
            break
        if missing > 0 and all(s == LARGEST_BITS for s in shares):
            raise ArgumentError(f"{bits} bits a tile are more than the codebooks can hold")
        step = 1 if missing > 0 else -1
        if 1 <= shares[k] + step <= LARGEST_BITS:
            shares[k] += step
    return list(zip(columns, shares, strict=True))


def fit_table(
    coefficients: np.ndarray,
    bits: int,
    number: int,
    step: int,
    *,
    rule: str = "balanced",
    seed: int = 0,
    **fit,
) -> dict[str, np.ndarray]:
    """Codebooks and heights of one bit table.

    Args:
        coefficients: of training tiles, [n, 16 M], float32.
        bits: of a tile.
        number: of the table, in [0, 255].
        step: index of the step that the synthesis is told.
        rule: "balanced" or "nearest".
        seed: of the codebooks' start.
        fit: passed to the solver of the heights.

    Returns:
        Arrays named `<number>.<what>`, for the weights.
    """
    if not 0 <= number <= 255:
        raise ArgumentError(f"number is {number}; it must lie in [0, 255]")
    rng = np.random.default_rng(seed)
    groups = allocate(coefficients.var(0), bits)
    codes, heights = [], []
    for columns, b in groups:
        samples = np.ascontiguousarray(coefficients[:, columns])
        y = lloyd(samples, 1 << b, rng)
        codes.append(y.astype(np.float16))
        y = y.astype(np.float16).astype(np.float32)
        if rule == "balanced":
            heights.append(balanced_heights(y, samples, seed=seed, **fit).astype(np.float32))
        else:
            heights.append(nearest_heights(y).astype(np.float32))
    arrays = {
        "bits": np.array([b for _, b in groups], np.uint8),
        "sizes": np.array([len(c) for c, _ in groups], np.int32),
        "columns": np.concatenate([c for c, _ in groups]).astype(np.int32),
        "y": np.concatenate([y.ravel() for y in codes]),
        "heights": np.concatenate(heights),
        "mean": coefficients.mean(0).astype(np.float16),
        "channels": np.array(coefficients.shape[1] // TILE**2, np.int32),
        "step": np.array(step, np.int32),
    }
    return {f"{number}.{name}": array for name, array in arrays.items()}


def lloyd(samples: np.ndarray, K: int, rng: np.random.Generator) -> np.ndarray:
    """K codes for the samples by Lloyd's iteration, [K, D], float32; empty cells are reseeded."""
    y = samples[rng.choice(len(samples), K, replace=len(samples) < K)].copy()
    for _ in range(LLOYD_ITERATIONS):
        _, index = power_argmax(samples, y, nearest_heights(y).astype(np.float32))
        counts = np.bincount(index, minlength=K)
        sums = np.zeros((K, samples.shape[1]))
        for d in range(samples.shape[1]):
            sums[:, d] = np.bincount(index, samples[:, d], minlength=K)
        y = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        y[empty] = samples[rng.choice(len(samples), len(empty))]
    return y


def fit_tables(
    coefficients: np.ndarray, bits: Sequence[int], step: int, **fit
) -> dict[str, np.ndarray]:
    """Bit tables for several rates, numbered from 0: see `fit_table`."""
    arrays: dict[str, np.ndarray] = {}
    for number, total in enumerate(sorted(bits)):
        arrays |= fit_table(coefficients, total, number, step, **fit)
    return arrays

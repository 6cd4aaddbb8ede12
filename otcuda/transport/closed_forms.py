# SPDX-License-Identifier: Apache-2.0
"""Heights without iterations: exact on the line, elsewhere the guess that solvers start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import otcuda
from otcuda.transport.arrays import to_numpy
from otcuda.transport.cells import START, Cells

_GUESS_SIZE = 1024  # samples, and targets, on which the guess is fitted
_ROOT_LIMIT = 1024  # dimensions beyond which covariances count by their traces only
_ROOT_STEPS = 50  # each brings a small eigenvalue up by 2.25
_ONE_THREAD = 180  # columns of a product up to which it is not left to BLAS
_BLOCK = 1 << 18  # numbers
_GOLDEN = (np.sqrt(5) - 1) / 2


def line_heights(
    y: np.ndarray, weights: np.ndarray, quantile: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Heights for D = 1, exact, eq. (11): cells are intervals that end at quantiles of the source.

    Args:
        y: different targets, [n], in any order.
        weights: theirs, [n], sum 1.
        quantile: inverse distribution function of the source.
    """
    order = np.argsort(y)
    ends = quantile(np.cumsum(weights[order])[:-1].clip(1e-300, 1 - 2.0**-53))
    h = np.zeros(len(y))
    h[order[1:]] = -np.cumsum(np.diff(y[order]) * ends)
    return h


def gaussian_heights(cells: Cells, seed: int) -> np.ndarray:
    """Heights as if source and targets were Gaussian, with two free numbers, eq. (10).

    `h = -a <x_mean, y> - c/2 y' B^-1 y` for centred y, where B is the linear map between both
    covariances. Right with a = c = 1 where cells are many for their dimension; the tails of few
    targets in many dimensions ask for less, so both minimise the dual, which is convex in them, on
    a few thousand samples and targets.
    """
    x = to_numpy(cells.sample(_GUESS_SIZE, seed, START)).astype(np.float64)
    return gaussian_guess(x, to_numpy(cells.targets(cells.home)), cells.weights, seed)


def gaussian_guess(x: np.ndarray, y: np.ndarray, nu: np.ndarray, seed: int) -> np.ndarray:
    """`gaussian_heights` from samples x [M, D], centred targets y [N, D], weights nu [N]."""
    mean = x.mean(0)
    x = x - mean
    bend = _quadratic_form(x, y, nu)
    slope = np.concatenate([(rows * mean).sum(1) for rows, _ in _blocks(y, nu)])
    some = np.random.default_rng(seed).permutation(len(y))[:_GUESS_SIZE]
    weights = nu[some] / nu[some].sum()
    # The samples carry the mean, which the heights are to take off again.
    samples, part = (x + mean).astype(np.float32), np.ascontiguousarray(y[some], np.float32)

    def dual(a: float, c: float) -> float:
        heights = -(a * slope[some] + c * bend[some])
        value = otcuda.power_argmax(samples, part, heights.astype(np.float32))[0]
        return float(value.mean(dtype=np.float64) - (weights * heights).sum())

    a, c = 1.0, _golden_section(lambda c: dual(1.0, c), 0.0, 2.0, steps=12)
    if slope.std() > 0.1 * bend.std():
        a = _golden_section(lambda a: dual(a, c), 0.0, 2.0, steps=12)
        c = _golden_section(lambda c: dual(a, c), max(0.0, c - 0.25), c + 0.25, steps=10)
    return -a * slope - c * bend


def _blocks(y: np.ndarray, nu: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of y in float64 and their weights, some at a time: never a second copy of y."""
    size = max(1, _BLOCK // y.shape[1])
    for at in range(0, len(y), size):
        yield y[at : at + size].astype(np.float64), nu[at : at + size]


def _quadratic_form(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Half y_i' B^-1 y_i of centred x and y, [n].

    B = Sx^-1/2 (Sx^1/2 Sy Sx^1/2)^1/2 Sx^-1/2 maps N(0, Sx) to N(0, Sy).
    """
    D = y.shape[1]
    square = np.concatenate([(rows * rows).sum(1) for rows, _ in _blocks(y, weights)])
    scale_x, scale_y = np.sqrt((x * x).mean()), np.sqrt((weights * square).sum() / D)
    if scale_x == 0 or scale_y == 0:
        return np.zeros(len(y))
    if D > _ROOT_LIMIT:
        return scale_x / scale_y * square / 2
    x = x / scale_x
    # A ridge: a direction in which the targets do not vary must not ask for infinite curvature.
    sx = _product(x.T, x) / len(x) + 1e-6 * np.eye(D)
    sy = 1e-4 * np.eye(D)
    for rows, nu in _blocks(y, weights):
        rows /= scale_y
        sy += _product((nu[:, None] * rows).T, rows)
    root, _ = _roots(sx)
    _, inner = _roots(_product(_product(root, sy), root))
    inverse = _product(_product(root, inner), root)
    forms = [(_product(rows, inverse) * rows).sum(1) for rows, _ in _blocks(y, weights)]
    return scale_x / scale_y * np.concatenate(forms) / 2


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product on one thread where it is small: BLAS would wait for others that have no core."""
    return a @ b if b.shape[1] > _ONE_THREAD else np.einsum("ij,jk->ik", a, b)


def _roots(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root and inverse root of a positive definite matrix, by Newton and Schulz."""
    D, size = len(matrix), float(np.sqrt((matrix * matrix).sum()))
    root, inverse = matrix / size, np.eye(D)
    for _ in range(_ROOT_STEPS):
        step = 1.5 * np.eye(D) - 0.5 * _product(inverse, root)
        root, inverse = _product(root, step), _product(step, inverse)
        if abs(step - np.eye(D)).max() < 1e-9:
            break
    return root * np.sqrt(size), inverse / np.sqrt(size)


def _golden_section(f: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """Minimum of a convex function on [low, high] within (high - low) 0.62^steps."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = f(left), f(right)
    for _ in range(steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = f(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = f(right)
    return (low + high) / 2

# SPDX-License-Identifier: Apache-2.0
"""Distributions of x: uniform cube, normal law, the paper's T~, a sampler, a set of points.

A draw is a function of a key, so the same seed gives the same samples, and two purposes (training,
validation, ...) never share one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

import otcuda
from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport.arrays import Home, is_torch, real_numpy, to_numpy

NAMED = ("normal", "uniform", "gaussian_cdf")


def key(seed: int, *purpose: int) -> int:
    """63 bits that belong to (seed, purpose): numbers drawn with different keys are independent."""
    # The length goes in too: SeedSequence takes (seed,) and (seed, 0) for the same.
    words = np.random.SeedSequence([len(purpose), seed, *purpose]).generate_state(1, np.uint64)
    return int(words[0] >> 1)


@dataclass(frozen=True, eq=False)
class Source:
    """A distribution of x on R^D.

    Attributes:
        draw: function (n, key) -> n independent samples, [n, D], NumPy or torch; the same key gives
            the same ones (a sampler of the user's own need not keep that promise).
        name: for messages and files; one of `NAMED` says that the native core draws this law
            itself.
        quantile: inverse of the distribution function for D = 1, NumPy [n] in (0, 1) -> [n]; None
            if unknown.
        points: the finite set that the samples come from, [M, D]; None for other laws.
    """

    draw: Callable[[int, int], Any]
    name: str = "custom"
    quantile: Callable[[np.ndarray], np.ndarray] | None = None
    points: Any = None

    def sample(self, n: int, key: int, D: int, home: Home) -> Any:
        """Independent samples, [n, D], where and as `home` says.

        Raises:
            ShapeError: the sampler gave another shape.
            ArgumentError: the sampler gave something else than finite real numbers.
        """
        if self.name in NAMED:
            return otcuda.source_samples(home.empty((n, D)), self.name, seed=key)
        x = self.draw(n, key)
        if not is_torch(x):
            x = real_numpy(f"source {self.name!r}", x)
        if tuple(x.shape) != (n, D):
            raise ShapeError(
                f"source {self.name!r} owes x [{n}, {D}]; it gave {list(map(int, x.shape))}"
            )
        x = home.bring(x)
        finite = x.isfinite() if is_torch(x) else np.isfinite(x)
        if not bool(finite.all()):
            raise ArgumentError(f"source {self.name!r} gave samples that are not finite")
        return x

    def from_noise(self, z: Any) -> Any:
        """Samples x made of normal noise z of any shape.

        That is z itself ("normal"), or its image under the normal distribution function, which
        fills the cube ("gaussian_cdf", the paper's T~, and "uniform").

        Raises:
            ArgumentError: the source is not one of the three named ones.
        """
        if self.name not in NAMED:
            raise ArgumentError(
                f"source {self.name!r} has no map from noise; {', '.join(NAMED)} have"
            )
        return z if self.name == "normal" else normal_cdf(z)


def normal_cdf(z: Any) -> Any:
    """Distribution function of the normal law, entry by entry, in the kind of z."""
    if is_torch(z):
        return (z / -math.sqrt(2)).erfc() / 2
    z = np.asarray(z)
    tail = np.frompyfunc(lambda t: math.erfc(-t / math.sqrt(2)) / 2, 1, 1)
    return tail(z).astype(z.dtype if z.dtype.kind == "f" else np.float64)


def make_source(source: Any, D: int) -> Source:
    """Source of what a user may pass: a name, a `Source`, a sampler, or points.

    Args:
        source: "normal" (N(0, I)), "uniform" (the cube [0, 1]^D), "gaussian_cdf" (normal noise
            through the normal distribution function: the law of "uniform"), a `Source`, a function
            `f(n)` or `f(n, seed=...)` that gives [n, D], or a tensor [M, D] of equally likely
            points.
        D: dimension of the targets.

    Raises:
        ArgumentError, ShapeError: none of these, or of another dimension.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str):
        return _named(source, D)
    if hasattr(source, "shape") or isinstance(source, (list, tuple)):
        return _finite(source, D)
    if callable(source):
        return Source(_sampler(source), name="callable")
    raise ArgumentError(
        f"source is {type(source).__name__}; expected {', '.join(map(repr, NAMED))}, a callable, "
        "an array [M, D] or a Source"
    )


def _named(name: str, D: int) -> Source:
    if name not in NAMED:
        raise ArgumentError(f"source is {name!r}; the named ones are {', '.join(map(repr, NAMED))}")

    def draw(n: int, key: int) -> np.ndarray:
        return otcuda.source_samples(np.empty((n, D), np.float32), name, seed=key)

    quantile = normal_quantile if name == "normal" else np.array
    return Source(draw, name, quantile)


def normal_quantile(p: np.ndarray) -> np.ndarray:
    """Inverse of the normal distribution function, float64; p in (0, 1)."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse(each) for each in p.tolist()])


def _sampler(function: Callable[..., Any]) -> Callable[[int, int], Any]:
    try:
        seeded = "seed" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins without a signature
        seeded = False
    if seeded:
        return lambda n, key: function(n, seed=key)
    return lambda n, key: function(n)


def _finite(points: Any, D: int) -> Source:
    numbers = real_numpy("source", points)
    if numbers.ndim != 2 or numbers.shape[0] < 1 or numbers.shape[1] != D:
        raise ShapeError(f"source takes points [M, {D}], M >= 1; got {list(numbers.shape)}")
    if not np.isfinite(numbers).all():
        raise ArgumentError("source holds numbers that are not finite")
    points = points if is_torch(points) else numbers
    M = len(numbers)

    def draw(n: int, key: int) -> Any:
        rows = np.random.Generator(np.random.Philox(key=key)).integers(M, size=n)
        return points[Home(points.device if is_torch(points) else None).bring(rows)]

    def quantile(p: np.ndarray) -> np.ndarray:
        # Half way between two order statistics: exactly round(p M) points lie below.
        x = np.sort(numbers[:, 0].astype(np.float64))
        k = np.clip(np.rint(p * M).astype(np.int64), 0, M)
        padded = np.concatenate([x[:1] - 1, x, x[-1:] + 1])
        return (padded[k] + padded[k + 1]) / 2

    return Source(draw, "points", quantile, points)


class Stream:
    """Batches for a solver: fresh samples for ever, or shuffled passes over a finite set."""

    def __init__(self, source: Source, D: int, home: Home, seed: int):
        self._source, self._D, self._home, self._seed = source, D, home, seed
        self._drawn = 0
        self._pool: Any = None if source.points is None else home.bring(source.points)
        self._order = np.zeros(0, np.int64)

    def next(self, n: int) -> Any:
        """The next n samples, [n, D]; of a finite set at most all of it."""
        self._drawn += 1
        if self._pool is None:
            return self._source.sample(n, key(self._seed, self._drawn), self._D, self._home)
        n = min(n, len(self._pool))
        if n == len(self._pool):
            return self._pool
        if (
            len(self._order) < n
        ):  # the rest of a pass is dropped: each batch is a set without repeats
            random = np.random.Generator(np.random.Philox(key=key(self._seed, self._drawn)))
            self._order = random.permutation(len(self._pool))
        rows, self._order = self._order[:n], self._order[n:]
        return self._pool[self._home.bring(rows)]


def points_numpy(source: Source) -> np.ndarray | None:
    """Points of a finite source as NumPy, or None."""
    return None if source.points is None else to_numpy(source.points)

# SPDX-License-Identifier: Apache-2.0
"""Doors for users of OTT-JAX: its semi-discrete solver and result by their names.

A script changes its import and nothing else. JAX is not needed, and is imported only to read a
problem of theirs; NumPy arrays go back, which JAX takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError
from otcuda.transport.arrays import to_numpy
from otcuda.transport.fitting import FitResult
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import Source, key

_PROBES = 4096  # samples behind the loss


@dataclass(frozen=True)
class SemidiscreteSolver:
    """OTT-JAX's `SemidiscreteSolver`: called with a key and a problem, it gives an output.

    Args:
        num_iterations: with batch_size, the most samples that may be scanned; None for no limit.
        batch_size: see there.
        optimizer: not looked at, like all that ours does not need to be told.
        threshold: goal on chi2; theirs is compared with an estimate, ours with the upper end of
            its interval.
        options: of `SemiDiscreteOT.fit`, such as {"method": "pools"}; None for none.
        error_eval_every, error_batch_size, error_num_repeats, potential_ema, epsilon_scheduler,
            callback: not looked at.
    """

    num_iterations: int | None = None
    batch_size: int = 256
    optimizer: Any = None
    threshold: float = 0.02
    options: dict[str, Any] | None = None
    error_eval_every: int = 1000
    error_batch_size: int | None = None
    error_num_repeats: int = 16
    potential_ema: float = 0.99
    epsilon_scheduler: Callable[..., Any] | None = None
    callback: Callable[[Any], Any] | None = None

    def __call__(self, rng: Any, prob: Any, g_init: Any = None) -> SemidiscreteOutput:
        """Solves a problem.

        Args:
            rng: key of JAX, or an integer.
            prob: OTT's `SemidiscreteLinearProblem` for the cost |x - y|^2 and epsilon 0, or a
                `SemiDiscreteOT`.
            g_init: not looked at.

        Raises:
            ArgumentError: another cost, or an entropic problem.
        """
        ot = prob if isinstance(prob, SemiDiscreteOT) else _problem_of(prob)
        limit = None if self.num_iterations is None else self.num_iterations * self.batch_size
        given = {"chi2": self.threshold, "max_samples": limit, **(self.options or {})}
        result = ot.fit(seed=seed_of(rng), **given)
        return SemidiscreteOutput(ot, result)


@dataclass(frozen=True)
class HardAssignmentOutput:
    """A sample of the coupling, as `SemidiscreteOutput.sample` gives it.

    Attributes:
        x: samples, [n, D].
        paired_indices: sample k goes to target paired_indices[1, k]; [2, n] int64.
        f: potential of the samples, [n]; g: of the targets, [N].
    """

    x: np.ndarray
    paired_indices: np.ndarray
    f: np.ndarray
    g: np.ndarray
    y: np.ndarray
    nu: np.ndarray

    @property
    def primal_cost(self) -> float:
        """Mean of |x - y|^2 over the pairs."""
        return float(((self.x - self.y[self.paired_indices[1]]) ** 2).sum(1).mean())

    @property
    def dual_cost(self) -> float:
        """Mean of f, and nu g."""
        held = self.nu > 0
        return float(self.f.mean() + self.nu[held] @ self.g[held])

    @property
    def matrix(self) -> np.ndarray:
        """The coupling, [n, N], dense."""
        n = len(self.x)
        dense = np.zeros((n, len(self.y)))
        dense[np.arange(n), self.paired_indices[1]] = 1 / n
        return dense


class SemidiscreteOutput:
    """OTT-JAX's `SemidiscreteOutput` of a fitted map.

    Args:
        ot: fitted map.
        result: how the fit ended; None takes `ot.result`.

    Attributes:
        ot: the map; result: how the fit ended.
        g: potential of the cost |x - y|^2, [N]: x belongs to argmin_j |x - y_j|^2 - g_j.
        it: stages of the fit.
        losses: dual loss -(mean f + nu g) at g, on fresh samples, [1].
        errors: chi2 as it was measured on the way, [measurements].
        converged: whether the goal was met.
    """

    def __init__(self, ot: SemiDiscreteOT, result: FitResult | None = None):
        self.ot, self.result = ot, ot.result if result is None else result
        self._y = to_numpy(ot.y).astype(np.float64)
        self.g = 2 * to_numpy(ot.heights).astype(np.float64) + (self._y**2).sum(1)
        history = () if self.result is None else self.result.history
        self.it = len(history)
        self.errors = np.array([record["chi2"] for record in history if "chi2" in record])
        self.converged = self.result is not None and self.result.converged
        self.losses = np.array([-self.sample(0, _PROBES).dual_cost])

    def sample(self, rng: Any, num_samples: int, *, epsilon: float | None = None) -> Any:
        """Samples of the source and their targets: `HardAssignmentOutput`.

        Raises:
            ArgumentError: epsilon is not 0.
        """
        _check_hard(epsilon)
        x, _, index = self.ot.pairs(num_samples, seed_of(rng))
        x, index = to_numpy(x).astype(np.float64), to_numpy(index)
        f = ((x - self._y[index]) ** 2).sum(1) - self.g[index]
        pairs = np.stack([np.arange(num_samples), index])
        return HardAssignmentOutput(x, pairs, f, self.g, self._y, to_numpy(self.ot.nu))

    def marginal_chi2_error(self, rng: Any, *, num_iters: int, batch_size: int) -> float:
        """chi2 on num_iters * batch_size fresh samples, without bias.

        All samples are compared with each other, not those of a batch: the same mean, a smaller
        variance.
        """
        return self.ot.chi2(num_iters * batch_size, seed_of(rng)).value

    def to_dataloader(
        self, rng: Any, batch_size: int, *, return_indices: bool = False
    ) -> Iterator[tuple[Any, ...]]:
        """Yields coupled batches (x, y) for ever, or (x, y, index)."""
        seed, number = seed_of(rng), 0
        while True:
            found = self.ot.pairs(batch_size, key(seed, 10, number))
            yield found if return_indices else found[:2]
            number += 1


def seed_of(rng: Any) -> int:
    """Seed of a key of JAX, old or new, or of an integer.

    Raises:
        ArgumentError: neither.
    """
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return int(rng)
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(rng, jax.Array):
        typed = jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key)
        words = np.asarray(jax.random.key_data(rng) if typed else rng).ravel()
        if words.dtype.kind == "u":
            return key(0, *map(int, words))
    raise ArgumentError(f"rng is {type(rng).__name__}, expected a key of JAX or an integer")


def _problem_of(prob: Any) -> SemiDiscreteOT:
    """Our problem of OTT's."""
    try:
        geom, b = prob.geom, prob.b
        y, sampler, cost = geom.y, geom.sampler, type(geom.cost_fn).__name__
    except AttributeError as error:
        raise ArgumentError(
            f"prob is {type(prob).__name__}, expected OTT's SemidiscreteLinearProblem or a "
            "SemiDiscreteOT"
        ) from error
    if cost != "SqEuclidean":
        raise ArgumentError(f"the cost is {cost}, expected SqEuclidean")
    _check_hard(float(prob.epsilon))
    y, nu = np.array(y), np.array(b, np.float64)
    return SemiDiscreteOT(y, nu / nu.sum(), _source_of(sampler, y))


def _source_of(sampler: Callable[..., Any], y: np.ndarray) -> Source | str:
    """The named source where JAX's own sampler is asked for, else one that calls theirs."""
    import jax

    for name, theirs in (("normal", jax.random.normal), ("uniform", jax.random.uniform)):
        if sampler is theirs:
            return name

    def draw(n: int, seed: int) -> np.ndarray:
        return np.array(sampler(jax.random.key(seed % 2**32), (n, y.shape[1]), y.dtype))

    return Source(draw, "callable")


def _check_hard(epsilon: float | None) -> None:
    if epsilon:
        raise ArgumentError(f"epsilon is {epsilon!r}, expected 0: the map is that of hard cells")

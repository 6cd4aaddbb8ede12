# SPDX-License-Identifier: Apache-2.0
"""Doors for users of POT and torchcfm: their functions and classes, our solver.

Costs are |x - y|^2 here, as there: `g = 2 h + |y|^2` up to a constant (docs/transport.md, eq. 3).
Those of OTT-JAX are in `ott_adapter`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport.arrays import Home, is_torch, real_numpy, to_numpy
from otcuda.transport.classes import ClassedOT
from otcuda.transport.ott_adapter import SemidiscreteOutput, SemidiscreteSolver
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import Source

__all__ = [
    "SemiDiscretePlanSampler",
    "SemidiscreteOutput",
    "SemidiscreteSolver",
    "semidiscrete_atom_weights",
    "semidiscrete_c_transform",
    "semidiscrete_ot_map",
    "solve_semidiscrete",
]

_POT_SOURCES = {"unif": "uniform", "unif_cube": "uniform", "normal": "normal"}
# What POT's solver needs to be told and ours does not.
_POT_STEPS = (
    "max_iter", "batch_size", "lr0", "lr_exponent", "init_potential", "decreasing_reg",
    "decreasing_reg_initial_eps", "decreasing_reg_exponent", "max_cost", "polyak_average",
)  # fmt: skip


def solve_semidiscrete(
    X_target: Any,
    sampler_source: str | Callable[[int], Any] | Source = "unif",
    a_target: Any = None,
    metric: str | None = None,
    reg: float = 0.0,
    *,
    chi2: float = 0.02,
    log: bool = False,
    **options: Any,
) -> Any:
    """POT's `ot.semidiscrete.solve_semidiscrete`, solved to a goal instead of for so many steps.

    Args:
        X_target: targets, [N, D].
        sampler_source: "unif" (the cube [0, 1]^D), "ball" (of radius 1), "normal", a function
            `f(n)`, or a `Source`.
        a_target: weights, [N]; None for equal ones.
        metric: None or "sqeuclidean".
        reg: 0; entropic potentials are not solved for.
        chi2: goal.
        log: also return {"last_potential": g, "result": FitResult} and the steps that were given.
        options: of `SemiDiscreteOT.fit`; POT's numbers and sizes of steps are not looked at.

    Returns:
        Potential g of the cost |x - y|^2, [N], mean 0; cells without weight have -inf.

    Raises:
        ArgumentError: another metric, reg or source.
    """
    _check(metric, reg)
    if reg != 0:
        raise ArgumentError(f"reg is {reg!r}, expected 0: only the hard problem is solved for")
    steps = {name: options.pop(name) for name in _POT_STEPS if name in options}
    ot = SemiDiscreteOT(X_target, a_target, _pot_source(sampler_source, to_numpy(X_target)))
    result = ot.fit(chi2=chi2, **options)
    h, y = to_numpy(ot.heights).astype(np.float64), to_numpy(ot.y).astype(np.float64)
    g = 2 * h + (y * y).sum(1)
    g -= g[np.isfinite(g)].mean()
    potential = Home.of(X_target).bring(g) if hasattr(X_target, "dtype") else g
    said = {**steps, "last_potential": potential, "result": result}
    return (potential, said) if log else potential


def semidiscrete_ot_map(
    X_target: Any,
    X_source: Any,
    semi_dual_potential: Any,
    a_target: Any = None,
    metric: str | None = None,
    reg: float = 0.0,
) -> Any:
    """POT's `semidiscrete_ot_map`: the image of each sample, [B, D].

    With reg 0 its target, and nothing of size B x N; else the mean under the soft weights.
    """
    if reg > 0:
        weights = semidiscrete_atom_weights(
            X_target, X_source, semi_dual_potential, a_target, metric, reg
        )
        return weights @ Home.of(weights).bring(X_target)
    return _map_of(X_target, semi_dual_potential, a_target, metric, reg).transport(X_source)


def semidiscrete_c_transform(
    X_target: Any,
    X_source: Any,
    semi_dual_potential: Any,
    a_target: Any = None,
    metric: str | None = None,
    reg: float = 0.0,
) -> Any:
    """POT's `semidiscrete_c_transform`: min_j |x - y_j|^2 - g_j of each sample, [B].

    With reg its soft minimum, -reg log sum_j nu_j exp((g_j - |x - y_j|^2) / reg).
    """
    if reg > 0:
        _check(metric, reg)
        scores = _soft_scores(X_target, X_source, semi_dual_potential, a_target, reg)
        top = scores.max(1)
        soft = top + np.log(np.exp(scores - top[:, None]).sum(1))
        return Home.of(_array(X_source)).bring(-reg * soft)
    ot = _map_of(X_target, semi_dual_potential, a_target, metric, reg)
    X_source = _array(X_source)
    # The heights of `ot` are shifted to a mean of zero; the shift is known on any target.
    g = to_numpy(semi_dual_potential).astype(np.float64)
    y, h = to_numpy(ot.y).astype(np.float64), to_numpy(ot.heights).astype(np.float64)
    some = int(np.argmax(np.isfinite(h)))
    shift = (g[some] - (y[some] ** 2).sum()) / 2 - h[some]
    return (X_source * X_source).sum(1) - 2 * (ot.potential(X_source) + float(shift))


def semidiscrete_atom_weights(
    X_target: Any,
    X_source: Any,
    semi_dual_potential: Any,
    a_target: Any = None,
    metric: str | None = None,
    reg: float = 0.0,
) -> Any:
    """POT's `semidiscrete_atom_weights`, [B, N]; dear: rows of the identity, softened by reg."""
    home = Home.of(_array(X_source))
    if reg > 0:
        _check(metric, reg)
        scores = _soft_scores(X_target, X_source, semi_dual_potential, a_target, reg)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        return home.bring(weights / weights.sum(1, keepdims=True))
    ot = _map_of(X_target, semi_dual_potential, a_target, metric, reg)
    return home.bring(np.eye(ot.N)[to_numpy(ot.assign(X_source))])


def _soft_scores(y: Any, x: Any, g: Any, nu: Any, reg: float) -> np.ndarray:
    """(g_j - |x_b - y_j|^2) / reg + log nu_j, float64 [B, N]."""
    ot = SemiDiscreteOT(y, nu)  # checks both
    names = ("X_source", "semi_dual_potential")
    x, g = (real_numpy(*each).astype(np.float64) for each in zip(names, (x, g), strict=True))
    if x.ndim != 2 or x.shape[1] != ot.D:
        raise ShapeError(f"X_source has shape {list(x.shape)}, expected [B, {ot.D}]")
    _check_potential(g, ot.N)
    y, weights = to_numpy(ot.y).astype(np.float64), to_numpy(ot.nu).astype(np.float64)
    cost = (x * x).sum(1)[:, None] - 2 * x @ y.T + (y * y).sum(1)
    with np.errstate(divide="ignore"):  # no weight, no share
        return (g - cost) / reg + np.log(weights)


def _pot_source(source: Any, y: Any) -> Any:
    if source in ("ball", "unif_ball") if isinstance(source, str) else False:
        D = y.shape[1]

        def ball(n: int, key: int) -> np.ndarray:
            random = np.random.Generator(np.random.Philox(key=key))
            z = random.standard_normal((n, D))
            radius = random.random((n, 1)) ** (1 / D)
            return radius * z / np.linalg.norm(z, axis=1, keepdims=True)

        return Source(ball, "ball")
    return _POT_SOURCES.get(source, source) if isinstance(source, str) else source


def _check(metric: str | None, reg: float) -> None:
    if metric not in (None, "sqeuclidean"):
        raise ArgumentError(f"metric is {metric!r}, expected None or 'sqeuclidean'")
    if not isinstance(reg, (int, float)) or not 0 <= reg < math.inf:
        raise ArgumentError(f"reg is {reg!r}, expected a number from 0")


def _map_of(y: Any, g: Any, nu: Any, metric: str | None, reg: float) -> SemiDiscreteOT:
    _check(metric, reg)
    ot = SemiDiscreteOT(y, nu)
    y, g = to_numpy(ot.y).astype(np.float64), real_numpy("semi_dual_potential", g)
    _check_potential(g, ot.N)
    ot.heights = (g.astype(np.float64) - (y * y).sum(1)) / 2
    return ot


def _check_potential(g: np.ndarray, N: int) -> None:
    if g.shape != (N,):
        raise ShapeError(f"semi_dual_potential has shape {list(g.shape)}, expected [{N}]")


def _array(x: Any) -> Any:
    """What has a shape as it is, lists as an array."""
    return x if hasattr(x, "shape") else real_numpy("x", x)


class SemiDiscretePlanSampler:
    """In the place of torchcfm's `OTPlanSampler`: couples noise with the whole data set.

    A minibatch plan couples only what lies in the batch; here each noise is sent to its target
    among all N, at any batch size: `FM.ot_sampler = SemiDiscretePlanSampler(ot)`. Samples may have
    any shape [B, ...] with the entries of a target, such as pictures.

    Args:
        ot: a fitted map from the noise onto the data; a `ClassedOT` couples within classes, which
            a conditional flow needs.
        labels: a label of each target, [N]; for `sample_plan_with_labels` of a map without classes.

    Raises:
        ArgumentError: `ot` is no such map.
        ShapeError: not a label for each target.

    >>> import numpy as np
    >>> ot = SemiDiscreteOT(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    >>> ot.fit(chi2=0.1).converged
    True
    >>> x0, x1 = SemiDiscretePlanSampler(ot).sample_plan(ot.pairs(8)[0])
    >>> x0.shape, x1.shape
    ((8, 2), (8, 2))
    """

    def __init__(self, ot: SemiDiscreteOT | ClassedOT, labels: Any = None):
        if not isinstance(ot, (SemiDiscreteOT, ClassedOT)):
            kind = type(ot).__name__
            raise ArgumentError(f"ot is {kind}, expected a SemiDiscreteOT or a ClassedOT")
        if labels is not None and len(labels) != len(ot.y):
            raise ShapeError(f"labels has shape [{len(labels)}], expected [{len(ot.y)}]")
        self.ot, self.labels = ot, labels

    def sample_plan(self, x0: Any, x1: Any = None, replace: bool = True) -> tuple[Any, Any]:
        """Noise x0 [B, ...] and its targets; x1 and `replace` are not looked at.

        Raises:
            ArgumentError: the map has classes, which it must be told.
        """
        if isinstance(self.ot, ClassedOT):
            raise ArgumentError("a map with classes couples by sample_plan_with_labels only")
        x0 = _array(x0)
        return x0, self.ot.transport(_flat(x0)).reshape(x0.shape)

    def sample_plan_with_labels(
        self, x0: Any, x1: Any = None, y0: Any = None, y1: Any = None, replace: bool = True
    ) -> tuple[Any, Any, Any, Any]:
        """The same with labels of noise and targets.

        With classes, y1 [B] says which class each noise is meant for, and comes back; else the
        labels of the targets come back instead of y1.

        Raises:
            ArgumentError: no labels and no classes.
        """
        x0 = _array(x0)
        if isinstance(self.ot, ClassedOT):
            if y1 is None:
                raise ArgumentError("sample_plan_with_labels of a map with classes needs y1")
            return x0, self.ot.transport(_flat(x0), y1).reshape(x0.shape), y0, y1
        if self.labels is None:
            raise ArgumentError("SemiDiscretePlanSampler has no labels; pass labels=")
        index = self.ot.assign(_flat(x0))
        x1 = Home.of(x0).bring(self.ot.y)[index].reshape(x0.shape)
        labels = _array(self.labels)
        return x0, x1, y0, labels[index if is_torch(labels) else to_numpy(index)]


def _flat(x: Any) -> Any:
    return x.reshape(len(x), -1)

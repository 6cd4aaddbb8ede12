# SPDX-License-Identifier: Apache-2.0
"""Doors for users of other libraries: POT's functions, and a plan sampler as torchcfm has it.

Costs are |x - y|^2 here, as there: `g = 2 h + |y|^2` up to a constant (docs/transport.md, eq. 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError
from otcuda.transport.arrays import Home, to_numpy
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import Source

_POT_SOURCES = {"unif": "uniform", "unif_cube": "uniform", "normal": "normal"}


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
        sampler_source: "unif" (the cube [0, 1]^D), "normal", a function `f(n)`, or a `Source`.
        a_target: weights, [N]; None for equal ones.
        metric: None or "sqeuclidean".
        reg: 0; entropic potentials are not solved for.
        chi2: goal.
        log: also return {"result": FitResult}.
        options: of `SemiDiscreteOT.fit`.

    Returns:
        Potential g of the cost |x - y|^2, [N], mean 0; cells without weight have -inf.

    Raises:
        ArgumentError: another metric or reg.
    """
    _check(metric, reg)
    source = sampler_source
    if isinstance(source, str):
        source = _POT_SOURCES.get(source, source)
    ot = SemiDiscreteOT(X_target, a_target, source)
    result = ot.fit(chi2=chi2, **options)
    h, y = to_numpy(ot.heights).astype(np.float64), to_numpy(ot.y).astype(np.float64)
    g = 2 * h + (y * y).sum(1)
    g -= g[np.isfinite(g)].mean()
    potential = Home.of(X_target).bring(g) if hasattr(X_target, "dtype") else g
    return (potential, {"result": result}) if log else potential


def semidiscrete_ot_map(
    X_target: Any,
    X_source: Any,
    semi_dual_potential: Any,
    a_target: Any = None,
    metric: str | None = None,
    reg: float = 0.0,
) -> Any:
    """POT's `semidiscrete_ot_map`: the target of each sample, [B, D]; nothing of size B x N."""
    return _map_of(X_target, semi_dual_potential, a_target, metric, reg).transport(X_source)


def semidiscrete_c_transform(
    X_target: Any,
    X_source: Any,
    semi_dual_potential: Any,
    a_target: Any = None,
    metric: str | None = None,
    reg: float = 0.0,
) -> Any:
    """POT's `semidiscrete_c_transform`: min_j |x - y_j|^2 - g_j of each sample, [B]."""
    ot = _map_of(X_target, semi_dual_potential, a_target, metric, reg)
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
    """POT's `semidiscrete_atom_weights`: rows of the identity, [B, N]; dear."""
    ot = _map_of(X_target, semi_dual_potential, a_target, metric, reg)
    index = to_numpy(ot.assign(X_source))
    return Home.of(X_source).bring(np.eye(ot.N)[index])


def _check(metric: str | None, reg: float) -> None:
    if metric not in (None, "sqeuclidean"):
        raise ArgumentError(f"metric is {metric!r}, expected None or 'sqeuclidean'")
    if reg != 0:
        raise ArgumentError(f"reg is {reg!r}, expected 0: the map is that of the hard problem")


def _map_of(y: Any, g: Any, nu: Any, metric: str | None, reg: float) -> SemiDiscreteOT:
    _check(metric, reg)
    ot = SemiDiscreteOT(y, nu)
    y = to_numpy(ot.y).astype(np.float64)
    ot.heights = (to_numpy(g).astype(np.float64) - (y * y).sum(1)) / 2
    return ot


class SemiDiscretePlanSampler:
    """In the place of torchcfm's `OTPlanSampler`: couples noise with the whole data set.

    A minibatch plan couples only what lies in the batch; here each noise is sent to its target
    among all N, at any batch size.

    Args:
        ot: a fitted map from the noise onto the data.
        labels: a label of each target, [N]; for `sample_plan_with_labels`.

    >>> import numpy as np
    >>> ot = SemiDiscreteOT(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    >>> ot.fit(chi2=0.1).converged
    True
    >>> x0, x1 = SemiDiscretePlanSampler(ot).sample_plan(ot.pairs(8)[0])
    >>> x0.shape, x1.shape
    ((8, 2), (8, 2))
    """

    def __init__(self, ot: SemiDiscreteOT, labels: Any = None):
        self.ot, self.labels = ot, labels

    def sample_plan(self, x0: Any, x1: Any = None, replace: bool = True) -> tuple[Any, Any]:
        """Noise x0 [B, D] and its targets; x1 and `replace` are not looked at."""
        return x0, self.ot.transport(x0)

    def sample_plan_with_labels(
        self, x0: Any, x1: Any = None, y0: Any = None, y1: Any = None, replace: bool = True
    ) -> tuple[Any, Any, Any, Any]:
        """The same with the labels of the noise, as given, and of the targets."""
        if self.labels is None:
            raise ArgumentError("SemiDiscretePlanSampler has no labels; pass labels=")
        index = self.ot.assign(x0)
        return x0, self.ot.y[index], y0, self.labels[index]

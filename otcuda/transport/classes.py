# SPDX-License-Identifier: Apache-2.0
"""One transport problem for each class of targets, in one call."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, ShapeError
from otcuda.transport.arrays import Home, real_numpy, to_numpy
from otcuda.transport.fitting import FitResult
from otcuda.transport.semidiscrete import SemiDiscreteOT
from otcuda.transport.sources import key


class ClassedOT:
    """Optimal transport onto the targets of each class: what a labelled generator is trained on.

    Class c is a problem of its own, `ot[c]`, from the same source; samples come with the class they
    are meant for.

    Args:
        y: targets, [N, D], as of `SemiDiscreteOT`.
        classes: class of each target, [N], integers.
        nu: weights, [N], not negative; within a class they are scaled to sum 1; None is equal.
        source: as of `SemiDiscreteOT`.

    Raises:
        ShapeError, ArgumentError: naming the argument, what it is, what it should be.

    >>> import numpy as np
    >>> y = np.array([[1.0, 0.0], [-1.0, 0.0], [5.0, 5.0]])
    >>> ot = ClassedOT(y, [0, 0, 7])
    >>> all(result.converged for result in ot.fit(chi2=0.05).values())
    True
    >>> ot.assign(np.array([[3.0, 0.0], [-3.0, 0.0], [-3.0, 0.0]]), [0, 0, 7]).tolist()
    [0, 1, 2]
    """

    def __init__(self, y: Any, classes: Any, nu: Any = None, source: Any = "normal"):
        of = self._labels("classes", classes)
        y = y if hasattr(y, "dtype") else real_numpy("y", y)
        if len(y.shape) != 2 or not len(y):
            raise ShapeError(f"ClassedOT takes y [N, D], N >= 1; got {list(map(int, y.shape))}")
        if len(y) != len(of):
            raise ShapeError(f"classes has shape [{len(of)}], expected [N] of y, [{len(y)}]")
        weights = np.ones(len(of)) if nu is None else to_numpy(nu).astype(np.float64)
        if weights.shape != of.shape:
            raise ShapeError(f"nu has shape {list(weights.shape)}, expected [{len(of)}]")
        self.labels = np.unique(of)
        self._rows = {int(c): np.flatnonzero(of == c) for c in self.labels}
        self._home, self.y = Home.of(y), y
        self._ots = {}
        for c, rows in self._rows.items():
            total = weights[rows].sum()
            if not total > 0 or not math.isfinite(total):
                raise ArgumentError(f"nu gives class {c} the weight {total}, expected more than 0")
            part = self.y[self._home.bring(rows)]
            self._ots[c] = SemiDiscreteOT(part, weights[rows] / total, source)

    def __repr__(self) -> str:
        return f"ClassedOT({len(self._ots)} classes, N={len(self.y)}, D={self.y.shape[1]})"

    def __getitem__(self, label: int) -> SemiDiscreteOT:
        """The problem of a class.

        Raises:
            ArgumentError: there is no such class, or it is no integer.
        """
        if not hasattr(label, "__index__") or label.__index__() not in self._ots:
            raise ArgumentError(f"class {label!r} has no target; there are {self._named()}")
        return self._ots[label.__index__()]

    def fit(
        self, *args: Any, max_seconds: float | None = None, seed: int = 0, **options: Any
    ) -> dict[int, FitResult]:
        """Fits every class; arguments as of `SemiDiscreteOT.fit`.

        Args:
            args: method.
            max_seconds: wall time of all together; what a class leaves goes to those after it.
            seed: of all samples; a class has the same heights whatever other classes there are.
            options: for each of them; no checkpoint.

        Returns:
            The result of each class.
        """
        if options.get("checkpoint") is not None:
            raise ArgumentError("fit of classes takes no checkpoint; fit them one by one")
        end, found = monotonic() + (max_seconds or 0.0), {}
        for done, (label, ot) in enumerate(self._ots.items()):
            limit = max_seconds
            if max_seconds is not None and max_seconds > 0:
                limit = max(1e-3, (end - monotonic()) / (len(self._ots) - done))
            of_class = key(seed, 9, label & (2**64 - 1)) if _is_seed(seed) else seed
            found[label] = ot.fit(*args, max_seconds=limit, seed=of_class, **options)
        return found

    def assign(self, x: Any, classes: Any) -> Any:
        """Target among all N for each sample x [B, D] meant for a class [B]: index [B], int64."""
        wanted = self._labels("classes", classes)
        x = x if hasattr(x, "dtype") else real_numpy("x", x)
        if len(x) != len(wanted):
            raise ShapeError(f"classes has shape [{len(wanted)}], expected [B] of x, [{len(x)}]")
        home, out = Home.of(x), np.empty(len(wanted), np.int64)
        for label in np.unique(wanted):
            here = np.flatnonzero(wanted == label)
            index = self[int(label)].assign(x[home.bring(here)])
            out[here] = self._rows[int(label)][to_numpy(index)]
        return home.bring(out)

    def transport(self, x: Any, classes: Any) -> Any:
        """Image of each sample x [B, D] meant for a class [B], [B, D]."""
        index = to_numpy(self.assign(x, classes))
        return self.y[self._home.bring(index)]

    def _labels(self, name: str, labels: Any) -> np.ndarray:
        found = to_numpy(labels)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            shape = list(found.shape)
            raise ArgumentError(f"{name} is {found.dtype} {shape}, expected integers [N]")
        return found

    def _named(self) -> str:
        first = ", ".join(str(c) for c in list(self._ots)[:8])
        return first + (", ..." if len(self._ots) > 8 else "")


def _is_seed(seed: Any) -> bool:
    return isinstance(seed, (int, np.integer)) and seed >= 0

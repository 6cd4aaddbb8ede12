# SPDX-License-Identifier: Apache-2.0
"""Semi-discrete optimal transport: from a distribution that can be sampled onto targets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, LimitError, ShapeError
from otcuda.transport import storage
from otcuda.transport.adam import fit_adam
from otcuda.transport.arrays import Home, is_torch, real_numpy, to_numpy
from otcuda.transport.asgd import NUMPY, fit_asgd
from otcuda.transport.auto import fit_auto
from otcuda.transport.cells import MASS, SAMPLING, Cells
from otcuda.transport.checkpoint import Checkpoint
from otcuda.transport.closed_forms import line_heights
from otcuda.transport.estimates import Estimate, estimate, free_memory
from otcuda.transport.estimators import Chi2, samples_to_certify
from otcuda.transport.extended_map import ExtendedMap, Extension, check_options
from otcuda.transport.fitting import FitResult, Goal, Run
from otcuda.transport.pools import fit_pools
from otcuda.transport.problem import Problem
from otcuda.transport.sources import NAMED, Source, key

# A solver takes (cells, run, seed) and gives (heights, result).
METHODS: dict[str, Callable[[Cells, Run, int], tuple[np.ndarray, FitResult]]] = {
    "auto": fit_auto,
    "adam": fit_adam,
    "asgd": fit_asgd,
    "pools": fit_pools,
}

_DEFAULT_METHOD = "auto"
_DEFAULT_CHI2 = 0.02


class SemiDiscreteOT:
    """Optimal transport from a source onto targets: `T(x) = y_i`, `i = argmax_i <x, y_i> + h_i`.

    With the right heights h each target receives its weight, and T is the optimal map for |x - y|^2
    (Brenier). Arrays in are NumPy or torch, arrays out are of the same kind; with NumPy, torch is
    never imported. Copies of a target share their cell, whose samples `assign` gives to the lowest
    of them and `sample` to each by weight; targets without weight have height -inf.

    Args:
        y: targets, [N, D], finite; float32, float64 or half precision. Fitting runs in float32 on
            their device.
        nu: weights of the targets, [N], not negative, sum 1; None is 1/N each.
        source: distribution of x: "normal" is N(0, I); "uniform" the cube [0, 1]^D; "gaussian_cdf",
            the paper's T~, normal noise through the normal distribution function, which fills the
            same cube; a function `f(n)` or `f(n, seed=...)` that gives [n, D]; a tensor [M, D] of
            equally likely points; or a `Source`.

    Raises:
        ShapeError, ArgumentError: naming the argument, what it is, what it should be.

    Source: Gu, Luo, Sun, Yau, Variational principles for Minkowski type problems, 2013; An et al.,
    AE-OT, ICLR 2020.

    >>> import numpy as np
    >>> y = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> ot = SemiDiscreteOT(y, nu=np.array([0.25, 0.75]))
    >>> ot.fit().converged
    True
    >>> ot.transport(np.array([[3.0, 0.0], [0.0, 5.0]])).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """

    def __init__(self, y: Any, nu: Any = None, source: Any = "normal"):
        self._problem = Problem(y, nu, source)
        self._cells = self._problem.cells
        self._h: np.ndarray | None = None
        self._extension: Extension | None = None
        self._images: dict[Home, Any] = {}
        self.result: FitResult | None = None

    def __repr__(self) -> str:
        state = "not fitted" if self._h is None else "fitted"
        if self.result is not None:
            state = f"chi2 {self.result.chi2:.4g}"
        return f"SemiDiscreteOT(N={self.N}, D={self.D}, source={self.source.name!r}, {state})"

    # --- the problem -----------------------------------------------------------------------------

    @property
    def N(self) -> int:  # noqa: N802
        """Number of targets, copies and those without weight included."""
        return self._problem.N

    @property
    def D(self) -> int:  # noqa: N802
        """Dimension."""
        return self._problem.D

    @property
    def y(self) -> Any:
        """Targets, [N, D]."""
        return self._image(self._problem.home)

    @property
    def nu(self) -> Any:
        """Weights of the targets, [N], sum 1."""
        return self._problem.home.bring(self._problem.nu.copy())

    @property
    def source(self) -> Source:
        """Distribution of x."""
        return self._problem.source

    @property
    def heights(self) -> Any:
        """Heights, [N], with sum nu h = 0: `power_argmax(x, ot.y, ot.heights)` is this map.

        Duals of other libraries: `g = h + |y|^2/2` for |x - y|^2/2 (OTT: twice that, for |x -
        y|^2). May be set, to heights from elsewhere; copies of a target then take the largest of
        theirs.
        """
        return self._problem.home.bring(self._problem.heights_of_targets(self._fitted()))

    @heights.setter
    def heights(self, h: Any) -> None:
        numbers = real_numpy("heights", h).astype(np.float64)
        if numbers.shape != (self.N,):
            raise ShapeError(f"heights has shape {list(numbers.shape)}, expected [{self.N}]")
        held = self._problem.cell_of >= 0
        if not np.isfinite(numbers[held]).all():
            raise ArgumentError("heights holds numbers that are not finite for targets with weight")
        cells = np.full(self._cells.n, -np.inf)
        np.maximum.at(cells, self._problem.cell_of[held], numbers[held])
        self._set(cells - self._cells.weights @ cells, None)

    # --- fitting ---------------------------------------------------------------------------------

    def fit(
        self,
        method: str = _DEFAULT_METHOD,
        *,
        chi2: float = _DEFAULT_CHI2,
        max_samples: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        design: str = "auto",
    ) -> FitResult:
        """Find the heights for which every target receives its weight.

        One dimension is solved in closed form where the source has quantiles. Ctrl-C stops at once
        and leaves the best heights so far ("adam": the old ones). The same arguments give the same
        heights on any number of threads, unless `max_seconds` cuts in.

        Args:
            method: "pools", Newton's method on the best cells of ever more samples, which takes
                the fewest samples; "asgd", averaged stochastic gradient descent, which takes the
                least memory; "auto", the pools for 512 to 65,536 targets of a named source that get
                a dozen samples each, without a time limit, else "asgd" as long as it helps and the
                pools from there; "adam", AE-OT's loop in units of the problem. Finite sources take
                "adam" instead of "auto" and "pools".
            chi2: goal: the upper end of the 95 % interval of sum_i (mass_i - nu_i)^2 / nu_i on
                fresh samples. The samples it takes grow as N / chi2.
            max_samples: samples that may be scanned, validation included; None for no limit.
            max_seconds: wall time; None for no limit.
            seed: of all samples, from 0.
            callback: called after each stage with a record of `FitResult.history`; returning False
                stops.
            checkpoint: file that is written after each stage, in a long descent every 10 seconds,
                and gone on from if it is there, to the same bits as a fit that was never stopped;
                for a named source, and not for "adam".
            design: "auto" draws scrambled Sobol points or products of halves where that brings the
                goal nearer; "iid" draws independent samples only. Measurements always do.

        Returns:
            How it ended; `converged` is False where a limit came first, and chi2 says how far the
            heights are.

        Raises:
            ArgumentError: an option that is not allowed, or a source that gives NaN.
            ShapeError: a source that gives a wrong shape.
            LimitError: it would take more memory than is free.
        """
        _check_method("fit", method)
        _check_seed("fit", seed)
        if callback is not None and not callable(callback):
            raise ArgumentError(f"fit: callback is {type(callback).__name__}, expected a function")
        if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
            raise ArgumentError(f"fit: checkpoint is {type(checkpoint).__name__}, expected a path")
        if checkpoint is not None and method == "adam":
            raise ArgumentError('fit: method "adam" takes no checkpoint; the others do')
        if checkpoint is not None and self.source.name not in NAMED:
            raise ArgumentError(f"fit: checkpoint needs a source of {', '.join(map(repr, NAMED))}")
        run = Run(Goal(chi2, max_samples, max_seconds, design), callback)
        if method in ("auto", "pools") and (self.source.points is not None or self.D == 1):
            method = "adam"
        if method != "adam":
            self._check_memory(run.goal, method)
        cells = self._problem.sorted_cells()
        if cells.n == 1 or (cells.D == 1 and self.source.quantile is not None):
            h, result = _fit_in_closed_form(cells, run, seed)
        else:
            if checkpoint is not None:
                y, settings = cells.targets(NUMPY), (self.source.name, method, chi2, seed, design)
                run.checkpoint = Checkpoint(checkpoint, to_numpy(y), cells.weights, *settings)
            h, result = self._run(method, cells, run, seed)
        self._set(self._problem.from_sorted(h), result)
        return result

    def estimate(
        self,
        chi2: float = _DEFAULT_CHI2,
        max_samples: int | None = None,
        method: str = _DEFAULT_METHOD,
    ) -> Estimate:
        """Memory and samples that `fit` will take, before it starts.

        `fit` raises LimitError where the memory is not there; "auto" takes less first. See
        `Estimate`.
        """
        _check_method("estimate", method)
        return self._estimate(Goal(chi2, max_samples), method)

    def _estimate(self, goal: Goal, method: str) -> Estimate:
        named = self.source.name in NAMED
        return estimate(self._cells.n, self.D, named, goal, method, free_memory())

    def _check_memory(self, goal: Goal, method: str) -> None:
        needed, free = self._estimate(goal, method).bytes, free_memory()
        if needed > free:
            cure = '; a larger chi2, max_samples or method="asgd" take less'
            raise LimitError(
                f"fit: {self.N} targets to chi2 {goal.chi2:g} take about {needed / 1e9:.2g} GB, "
                f"and {free / 1e9:.2g} GB are free{cure if method == 'pools' else ''}"
            )

    def _run(self, method: str, cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
        try:
            return METHODS[method](cells, run, seed)
        except KeyboardInterrupt:
            if run.best is not None:
                self._set(self._problem.from_sorted(run.best), None)
            raise

    def _set(self, h: np.ndarray, result: FitResult | None) -> None:
        self._h, self.result, self._extension = h, result, None

    def _fitted(self) -> np.ndarray:
        if self._h is None:
            raise ArgumentError("SemiDiscreteOT has no heights yet; call fit(), or set heights")
        return self._h

    # --- the map ---------------------------------------------------------------------------------

    def assign(self, x: Any) -> Any:
        """Target of each sample: x [B, D] -> index [B] int64; the lowest of equal ones."""
        x, home = self._samples(x)
        return self._targets_of(self._cells.scan(x, self._fitted(), home)[1], home)

    def transport(self, x: Any) -> Any:
        """Image of each sample: x [B, D] -> y[assign(x)] [B, D]."""
        index = self.assign(x)
        return self._image(Home.of(self._samples(x)[0]))[index]

    def potential(self, x: Any) -> Any:
        """Brenier potential u_h(x) = max_i <x, y_i> + h_i, [B]; in torch its gradient is T(x)."""
        x, home = self._samples(x)
        return self._cells.scan(x, self._fitted(), home)[0] + x @ home.bring(self._cells.centre)

    def sample(self, n: int, seed: int = 0) -> Any:
        """Targets drawn through the map, [n, D]: source, then T. Copies are drawn by weight."""
        return self.pairs(n, seed)[1]

    def pairs(self, n: int, seed: int = 0) -> tuple[Any, Any, Any]:
        """Samples x [n, D], their images y_i [n, D] and targets i [n]: the coupling."""
        _check_count("pairs", n)
        _check_seed("pairs", seed)
        home = self._problem.home
        x = home.bring(self._cells.sample(n, seed, SAMPLING))
        cell = to_numpy(self._cells.scan(x, self._fitted(), home)[1])
        index = home.bring(self._copies(cell, key(seed, SAMPLING, 1)))
        return x, self._image(home)[index], index

    def to_dataloader(
        self, batch_size: int, *, batches: int | None = None, seed: int = 0
    ) -> Iterator[tuple[Any, Any]]:
        """Yields coupled batches (x [batch_size, D], T(x) [batch_size, D]), for ever by default.

        What a flow is trained on: each batch is a fresh draw; the same seed gives the same ones.
        """
        _check_count("to_dataloader", batch_size)
        _check_seed("to_dataloader", seed)
        self._fitted()
        numbers = itertools.count() if batches is None else range(batches)
        return (self.pairs(batch_size, key(seed, SAMPLING, 2, number))[:2] for number in numbers)

    def neighbours(self, n: int | None = None, seed: int = 0) -> tuple[Any, Any]:
        """Cells that meet: pairs [E, 2], the lower first, ascending, and their hits [E].

        A pair is hit by each of n fresh samples whose best and second-best cells it is: facets of
        the diagram, the larger ones more surely. `n=None` takes what `chi2` takes. Copies of a
        target stand for one cell, by the lowest of them.
        """
        n = self._measured(n, "neighbours")
        _check_seed("neighbours", seed)
        if self._cells.n < 2:
            return self._problem.home.bring(np.zeros((0, 2), np.int64)), np.zeros(0, np.int64)
        pairs, hits = self._cells.pairs_that_meet(self._fitted(), n, seed)
        lowest = np.sort(self._problem.target_of[pairs], 1)
        order = np.lexsort((lowest[:, 1], lowest[:, 0]))
        return self._problem.home.bring(lowest[order]), self._problem.home.bring(hits[order])

    def extended_map(
        self, x: Any, topk: int = 8, angle: float | str = "auto", weights: str = "gap"
    ) -> ExtendedMap:
        """AE-OT's extension of the map: means of neighbouring targets, none across gaps of modes.

        Of the `topk` best cells of x those are kept whose supporting plane meets the winner's at no
        more than `angle`. Where none but the winner is left, x lies in the singular set: `valid` is
        False.

        Args:
            x: samples, [B, D].
            topk: candidate cells, the winner included; 1 is `transport`.
            angle: radians between normals (y_i, -1), as in the paper (which has 0.7); "auto"
                measures angles in units of the targets' spread and cuts at the valley of their
                distribution, or at its 97 % quantile if it has none.
            weights: "gap": by how little a cell loses, in units of the mean gap, continuous in x;
                "centroid": the paper's inverse distance to the mean sample of a cell; "aeot": the
                released code's 1/4 and 3/4.

        Returns:
            points, indices, weights, valid.

        Source: An et al., AE-OT, ICLR 2020, algorithm 2.
        """
        check_options(topk, angle, weights)
        x, home = self._samples(x)
        if self._extension is None:
            self._extension = Extension(self._cells, self._fitted())
        shares, cell, valid = self._extension.apply(x, int(topk), angle, weights)
        index = self._problem.target_of[cell]
        shares = np.where(valid[:, None], shares, np.eye(1, shares.shape[1]))
        points = np.einsum("bk,bkd->bd", shares, self._problem.y[index])
        threshold = self._extension.threshold(angle)
        return ExtendedMap(*map(home.bring, (points, index, shares, valid)), angle=threshold)

    def _samples(self, x: Any) -> tuple[Any, Home]:
        """Checked samples, in float32 or float64, and their home."""
        if not is_torch(x):
            x = real_numpy("x", x)
        home = Home.of(x)
        if len(x.shape) != 2 or x.shape[1] != self.D:
            raise ShapeError(f"x has shape {list(map(int, x.shape))}, expected [B, {self.D}]")
        x = home.bring(x)
        if not bool((x.isfinite() if is_torch(x) else np.isfinite(x)).all()):
            raise ArgumentError("x is not finite: it holds NaN or infinity")
        return x, home

    def _targets_of(self, cell: Any, home: Home) -> Any:
        return cell if self._cells.n == self.N else home.bring(self._problem.target_of)[cell]

    def _image(self, home: Home) -> Any:
        if home not in self._images:
            self._images[home] = home.bring(self._problem.y)
        return self._images[home]

    def _copies(self, cell: np.ndarray, key: int) -> np.ndarray:
        """A target of each cell, drawn by weight among its copies."""
        problem = self._problem
        if self._cells.n == self.N:
            return cell
        targets = np.argsort(problem.cell_of, kind="stable")[
            np.count_nonzero(problem.cell_of < 0) :
        ]
        ends = np.cumsum(problem.nu[targets])
        last = np.searchsorted(problem.cell_of[targets], np.arange(self._cells.n), side="right") - 1
        first = np.concatenate([[0], last[:-1] + 1])
        starts = np.concatenate([[0.0], ends])[first]
        draw = np.random.Generator(np.random.Philox(key=key)).random(len(cell))
        place = np.searchsorted(
            ends, starts[cell] + draw * (ends[last] - starts)[cell], side="right"
        )
        return targets[np.clip(place, first[cell], last[cell])]

    # --- measurements ----------------------------------------------------------------------------

    def mass(self, n: int | None = None, seed: int = 0) -> Any:
        """Measured mass of the cells, [N], sum 1, on n fresh samples.

        Exact for a source of at most n points. Copies of a target divide their mass by weight.
        `n=None` takes what `chi2` takes.
        """
        n = self._measured(n, "mass")
        _check_seed("mass", seed)
        points = self.source.points
        if points is not None and len(points) <= n:
            mass = self._cells.point_mass(self._fitted())
        else:
            mass = self._cells.counts(self._fitted(), n, seed, MASS) / n
        return self._problem.home.bring(self._problem.mass_of_targets(mass))

    def chi2(self, n: int | None = None, seed: int = 0) -> Chi2:
        """Unbiased sum_i (mass_i - nu_i)^2 / nu_i on n fresh samples, with its 95 % interval.

        Exact for a source of at most n points. `n=None` takes enough to tell 0.02 from 0.024.
        """
        n = self._measured(n, "chi2")
        _check_seed("chi2", seed)
        return self._cells.chi2(self._fitted(), n, seed, MASS)

    def _measured(self, n: int | None, name: str) -> int:
        if n is None:
            return samples_to_certify(self._cells.n, _DEFAULT_CHI2)
        _check_count(name, n)
        return int(n)

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write targets, weights, heights and result to a safetensors file, whole or not at all.

        A source that is not a named one is not in the file; `load` takes it again.
        """
        storage.save(path, self._problem, self._h, self.result)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], source: Any = None, device: Any = None
    ) -> SemiDiscreteOT:
        """Read what `save` wrote.

        Args:
            path: the file.
            source: as in the constructor; needed by fit, sample, mass and chi2 where it was not a
                named one.
            device: torch device of the targets; "numpy" for NumPy; None for the kind that was
                saved, on the CPU.

        Raises:
            CorruptDataError: not such a file.
        """
        saved = storage.load(path, device)
        ot = cls(saved.y, saved.nu, saved.source if source is None else source)
        if saved.heights is not None:
            ot.heights = saved.heights
        ot.result = saved.result
        return ot


def _fit_in_closed_form(cells: Cells, run: Run, seed: int) -> tuple[np.ndarray, FitResult]:
    h = np.zeros(1)
    if cells.n > 1:
        y = cells.targets(Home(None, "float64"))[:, 0]
        h = line_heights(y, cells.weights, cells.source.quantile)
    check = samples_to_certify(cells.n, run.goal.chi2)
    M = int(max(2, min(check, run.samples_left())))
    chi2 = cells.chi2(h, M, seed, MASS, run.late)
    run.scanned += chi2.samples
    run.stopped_by = "closed_form"
    return h, run.result(chi2, cells.n)


def _check_method(name: str, method: Any) -> None:
    if not isinstance(method, str) or method not in METHODS:
        allowed = ", ".join(map(repr, METHODS))
        raise ArgumentError(f"{name}: method is {method!r}, expected {allowed}")


def _check_count(name: str, n: Any) -> None:
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise ArgumentError(f"{name}: n is {n!r}, expected an integer from 1")


def _check_seed(name: str, seed: Any) -> None:
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise ArgumentError(f"{name}: seed is {seed!r}, expected an integer from 0")

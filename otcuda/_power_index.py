# SPDX-License-Identifier: Apache-2.0
"""`PowerIndex`: targets prepared once for many calls of power_argmax, on the CPU."""

from __future__ import annotations

import functools
import operator
import sys
from typing import Any

from otcuda._arrays import (
    NumpyArrays,
    TorchArrays,
    as_numpy,
    check_out,
    is_torch,
    like_first,
    on_gpu,
)
from otcuda._ops import native, respect_torch_threads
from otcuda._power import check_k, gap_of, mass_of, no_gradient_into_out, outputs, written
from otcuda.errors import ArgumentError, DeviceError, ShapeError, check_shapes

_HANDLES = {"float32": native.PowerIndexF32, "float64": native.PowerIndexF64}


class PowerIndex:
    """Targets prepared once for many calls: `argmax(x)` is `power_argmax(x, y, h)`, bit for bit.

    In low dimension, or where targets lie near a surface of low dimension, a tree of boxes finds
    the winner among millions while looking at some hundreds. In many dimensions (float32) a screen
    of small integers finds the few targets that may win. Both leave out only targets that provably
    can neither win nor tie. Holds two copies of `y`, norms and boxes, and once the screen has been
    used a quarter of `y` more, three quarters where bytes were too coarse and bfloat16 took their
    place; calls from several threads are safe.

    Args:
        y: targets, [N, D], N >= 1, float32 or float64, in host memory: a torch tensor, a NumPy
            array or anything with `__dlpack__`. Copied. float16 and bfloat16 are widened to
            float32, here and for heights and samples.
        h: heights, [N], dtype of `y`; None: `set_heights` comes before the first `argmax`.
        tree: build the tree, which takes about N log N steps; False keeps to the blocked loop.

    Raises:
        ShapeError: y is not [N, D], or h not [N].
        ArgumentError: no target, or a dtype that is not allowed.
        DeviceError: y does not lie in host memory.

    >>> import numpy as np
    >>> index = PowerIndex(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2))
    >>> value, winner = index.argmax(np.array([[0.5, 0.0], [-2.0, 1.0]]))
    >>> value.tolist(), winner.tolist()
    ([0.5, 2.0], [0, 1])
    """

    def __init__(self, y: Any, h: Any = None, *, tree: bool = True):
        y, arrays = self._own("y", y)
        check_shapes("PowerIndex", y=(y, "N D"))
        self.dtype = arrays.dtype(y)
        if self.dtype not in _HANDLES:
            raise ArgumentError(f"PowerIndex: y is {self.dtype}, expected float32 or float64")
        self.shape = tuple(y.shape)
        self._h: Any = None  # the heights, where they require a gradient
        self._handle = _HANDLES[self.dtype](arrays.native(arrays.contiguous(y)), bool(tree))
        if h is not None:
            self.set_heights(h)

    @property
    def has_tree(self) -> bool:
        """Whether there is a tree; sets under 512 targets or with NaN, inf or > 1e15 have none."""
        return self._handle.has_tree

    def set_heights(self, h: Any) -> None:
        """New heights, [N], in O(N); waits for calls of `argmax` in other threads.

        Copied; but a tensor that requires a gradient is kept, and gets it from the values of
        `argmax` and `topk` until the heights change.

        Raises:
            ShapeError: h is not [N].
            ArgumentError: h has not the dtype of the targets.
        """
        h, arrays = self._own("h", h)
        if tuple(h.shape) != self.shape[:1]:
            given = list(h.shape)
            raise ShapeError(f"PowerIndex takes h [N], here [{self.shape[0]}]; got h {given}")
        self._check_dtype("h", arrays.dtype(h))
        self._handle.set_heights(arrays.native(arrays.contiguous(h)))
        self._h = h if arrays is TorchArrays and h.requires_grad else None

    def argmax(
        self,
        x: Any,
        *,
        method: str = "auto",
        return_gap: bool = False,
        return_mass: bool = False,
        weights: Any = None,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Any, ...]:
        """Cell in which each sample lies, and its score: `power_argmax(x, y, h)`, bit for bit.

        Args:
            x: samples, [B, D], dtype of the targets, in host memory.
            method: "auto" tries the tree, then the screen, on some 32 samples of the first call
                with 64 or more, and remembers until the heights change whether they did less work
                than the blocked loop; "tree", "screen" and "brute" decide, but what the screen
                cannot take goes to the blocked loop. `backend_info()["paths"]` tells which one ran.
            return_gap: also value minus the second best score, as `power_argmax` has it.
            return_mass: also the mass of the cells, `cell_mass(index, N, weights)`.
            weights: weights of the samples, [B], for return_mass; None counts.
            out: pair (value, index) to write into.

        Returns:
            value: score of the winner, [B], in the dtype of `x`; differentiable in `x` and in the
                heights, where the tensor given to `set_heights` requires a gradient. None reaches
                the targets, which are copied.
            index: the winner, [B], int64.
            gap: with return_gap, [B]; differentiable alike.
            mass: with return_mass, [N].

        Raises:
            ShapeError: x is not [B, D].
            ArgumentError: a wrong dtype or method, no heights yet, "tree" where there is none, or
                an `out` that cannot be written to.
            DeviceError: x does not lie in host memory.
        """
        if weights is not None and not return_mass:
            raise ArgumentError("PowerIndex: weights are for return_mass=True")
        arrays, x_, kind = *self._samples(x), x
        extras, shape = [], (x_.shape[0],)
        if out is not None:
            self._check_out(arrays, out, shape, x_)
        if return_gap:
            value, index, gap = self._found_with_gap(arrays, x_, method, out)
            extras.append(gap)
        else:
            value, index = self._found(arrays, x_, shape, method, out)
            value = self._differentiable(arrays, x_, value, index)
        if return_mass:
            weights = (
                arrays.widened(self._own("weights", weights)[0]) if weights is not None else None
            )
            extras.append(mass_of(arrays, index, self.shape[0], weights))
        if out is not None:
            return *written(arrays, out, (value, index)), *(like_first(kind, e) for e in extras)
        return like_first(kind, value, index, *extras)

    def topk(
        self, x: Any, k: int, *, method: str = "auto", out: tuple[Any, Any] | None = None
    ) -> tuple[Any, Any]:
        """The k best cells of each sample, in order: `power_topk(x, y, h, k)`, bit for bit.

        Args:
            x: samples, [B, D], dtype of the targets, in host memory.
            k: how many, 1 to 64.
            method: "auto" tries the tree on some samples of the first call with 64 or more, then
                the screen, and remembers the answer for this k until the heights change; "tree",
                "screen" and "brute" decide, as in `argmax`.
            out: pair (value, index) to write into.

        Returns:
            value: scores, [B, k], in the dtype of `x`; differentiable as those of `argmax`.
            index: the targets that have them, [B, k], int64.

        Raises:
            ShapeError: x is not [B, D].
            ArgumentError: a k, dtype or method that is not allowed, no heights yet, "tree" where
                there is none, or an `out` that cannot be written to.
            DeviceError: x does not lie in host memory.
        """
        k = operator.index(k)
        check_k("PowerIndex.topk", k)
        arrays, x_, kind = *self._samples(x), x
        shape = (x_.shape[0], k)
        if out is not None:
            self._check_out(arrays, out, shape, x_)
        value, index = self._found(arrays, x_, shape, method, out)
        if out is not None:
            return written(arrays, out, (value, index))
        return like_first(kind, self._differentiable(arrays, x_, value, index), index)

    def _samples(self, x: Any) -> tuple[Any, Any]:
        x, arrays = self._own("x", x)
        if len(x.shape) != 2 or x.shape[1] != self.shape[1]:
            shape = list(x.shape)
            raise ShapeError(f"PowerIndex takes x [B, D], here [B, {self.shape[1]}]; got x {shape}")
        self._check_dtype("x", arrays.dtype(x))
        return arrays, x

    def _check_out(self, arrays: Any, out: Any, shape: tuple[int, ...], x: Any) -> None:
        check_out("PowerIndex", arrays, out, shape, self.dtype, [x])
        if arrays is TorchArrays:
            no_gradient_into_out("PowerIndex", x, self._h)

    def _found(
        self, arrays: Any, x: Any, shape: tuple[int, ...], method: str, out: Any
    ) -> tuple[Any, Any]:
        """Value and index of that shape, [B] or [B, k], without a gradient."""
        respect_torch_threads()
        value, index = outputs(arrays, x, shape, out)
        find = self._handle.argmax if len(shape) == 1 else self._handle.topk
        find(*map(arrays.native, (arrays.contiguous(x), value, index)), method)
        if out is not None:
            arrays.wrote(value, index)
        return value, index

    def _found_with_gap(self, arrays: Any, x: Any, method: str, out: Any) -> tuple[Any, Any, Any]:
        if self._watched(arrays, x):  # the second best hears of a gradient
            values, indices = self._found(arrays, x, (x.shape[0], 2), method, None)
            values = self._differentiable(arrays, x, values, indices)
            value, index = (arrays.dense(array[:, 0]) for array in (values, indices))
            return value, index, gap_of(arrays, values, indices)
        respect_torch_threads()
        value, index = outputs(arrays, x, (x.shape[0],), out)
        gap = arrays.empty((x.shape[0],), self.dtype, x)
        found = map(arrays.native, (arrays.contiguous(x), value, index, gap))
        self._handle.argmax_gap(*found, method)
        if out is not None:
            arrays.wrote(value, index)
        return value, index, gap

    def _watched(self, arrays: Any, x: Any) -> bool:
        """Whether a gradient is asked for."""
        if arrays is NumpyArrays or not sys.modules["torch"].is_grad_enabled():
            return False
        return x.requires_grad or self._h is not None

    def _differentiable(self, arrays: Any, x: Any, value: Any, index: Any) -> Any:
        if not self._watched(arrays, x):
            return value
        return _scores(sys.modules["torch"]).apply(x, self._h, self, value, index)

    def _targets(self, index: Any, like: Any) -> Any:
        """Rows of y, [M, D], from the copy of the handle; zeros for -1."""
        out = like.new_empty((index.shape[0], self.shape[1]))
        self._handle.targets(*map(TorchArrays.native, (index.contiguous(), out)))
        return out

    def _own(self, name: str, array: Any) -> tuple[Any, Any]:
        if not is_torch(array):
            if on_gpu(array):
                raise DeviceError(f"PowerIndex: {name} lies on a CUDA device, not in host memory")
            held, arrays = as_numpy("PowerIndex", **{name: array})[0], NumpyArrays
        else:
            held, arrays = array, TorchArrays
            if array.device.type != "cpu":
                raise DeviceError(
                    f"PowerIndex: {name} lies on {array.device}, expected host memory"
                )
        return arrays.widened(held), arrays

    def _check_dtype(self, name: str, dtype: str) -> None:
        if dtype != self.dtype:
            raise ArgumentError(f"PowerIndex: {name} is {dtype}, y is {self.dtype}; expected one")


@functools.cache
def _scores(torch: Any) -> Any:
    """The autograd function of scores that an index has found: linear in x and in the heights."""

    class Scores(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, h, owner, value, index):
            ctx.owner = owner
            ctx.save_for_backward(index)
            return value.view_as(value)

        @staticmethod
        def backward(ctx, grad):
            (index,) = ctx.saved_tensors
            index, grad = (a.reshape(a.shape[0], -1) for a in (index, grad))
            grad = torch.where(index >= 0, grad, 0)  # a place without a target hands on nothing
            dx = dh = None
            if ctx.needs_input_grad[0]:
                places = range(index.shape[1])
                dx = sum(grad[:, k, None] * ctx.owner._targets(index[:, k], grad) for k in places)
            if ctx.needs_input_grad[1]:
                at = index.clamp(min=0).reshape(-1)
                dh = grad.new_zeros(ctx.owner.shape[0]).index_add(0, at, grad.reshape(-1))
            return dx, dh, None, None, None

    return Scores

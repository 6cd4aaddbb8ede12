# SPDX-License-Identifier: Apache-2.0
"""`PowerIndex`: targets prepared once for many calls of power_argmax, on the CPU."""

from __future__ import annotations

from typing import Any

from otcuda._arrays import NumpyArrays, TorchArrays, as_numpy, check_torch, is_torch, like_first
from otcuda._ops import native, respect_torch_threads
from otcuda.errors import ArgumentError, DeviceError, ShapeError, check_shapes

_HANDLES = {"float32": native.PowerIndexF32, "float64": native.PowerIndexF64}


class PowerIndex:
    """Targets prepared once for many calls: `argmax(x)` is `power_argmax(x, y, h)`, bit for bit.

    In low dimension, or where targets lie near a surface of low dimension, a tree of boxes finds
    the winner among millions while looking at some hundreds. In many dimensions (float32) a screen
    of small integers finds the few targets that may win. Both leave out only targets that provably
    can neither win nor tie. Holds two copies of `y`, norms and boxes, and once the screen has been
    used a quarter of `y` more; calls from several threads are safe.

    Args:
        y: targets, [N, D], N >= 1, float32 or float64, in host memory: a torch tensor, a NumPy
            array or anything with `__dlpack__`. Copied.
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
        self._handle = _HANDLES[self.dtype](arrays.native(arrays.contiguous(y)), bool(tree))
        if h is not None:
            self.set_heights(h)

    @property
    def has_tree(self) -> bool:
        """Whether there is a tree; sets under 512 targets or with NaN, inf or > 1e15 have none."""
        return self._handle.has_tree

    def set_heights(self, h: Any) -> None:
        """New heights, [N], in O(N); waits for calls of `argmax` in other threads.

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

    def argmax(self, x: Any, *, method: str = "auto") -> tuple[Any, Any]:
        """Cell in which each sample lies, and its score: `power_argmax(x, y, h)`, bit for bit.

        Args:
            x: samples, [B, D], dtype of the targets, in host memory.
            method: "auto" tries the tree, then the screen, on some 32 samples of the first call
                with 64 or more, and remembers until the heights change whether they did less work
                than the blocked loop; "tree", "screen" and "brute" decide, but what the screen
                cannot take goes to the blocked loop. `backend_info()["paths"]` tells which one ran.

        Returns:
            value: score of the winner, [B], in the dtype of `x`; carries no gradient.
            index: the winner, [B], int64.

        Raises:
            ShapeError: x is not [B, D].
            ArgumentError: a wrong dtype or method, no heights yet, or "tree" where there is none.
            DeviceError: x does not lie in host memory.
        """
        given = x
        x, arrays = self._own("x", x)
        if len(x.shape) != 2 or x.shape[1] != self.shape[1]:
            shape = list(x.shape)
            raise ShapeError(f"PowerIndex takes x [B, D], here [B, {self.shape[1]}]; got x {shape}")
        self._check_dtype("x", arrays.dtype(x))
        respect_torch_threads()
        value = arrays.empty((x.shape[0],), self.dtype, x)
        index = arrays.empty((x.shape[0],), "int64", x)
        x = arrays.contiguous(x)
        self._handle.argmax(*map(arrays.native, (x, value, index)), method)
        return (value, index) if arrays is TorchArrays else like_first(given, value, index)

    def _own(self, name: str, array: Any) -> tuple[Any, Any]:
        if not is_torch(array):
            return as_numpy("PowerIndex", **{name: array})[0], NumpyArrays
        check_torch("PowerIndex", **{name: array})
        if array.device.type != "cpu":
            raise DeviceError(f"PowerIndex: {name} lies on {array.device}, expected host memory")
        return array, TorchArrays

    def _check_dtype(self, name: str, dtype: str) -> None:
        if dtype != self.dtype:
            raise ArgumentError(f"PowerIndex: {name} is {dtype}, y is {self.dtype}; expected one")

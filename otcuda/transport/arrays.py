# SPDX-License-Identifier: Apache-2.0
"""Where arrays live: NumPy, or torch on a device. What comes in as one kind goes out as it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError

_FLOATS = ("float32", "float64")


def is_torch(array: Any) -> bool:
    """Whether `array` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def to_numpy(array: Any) -> np.ndarray:
    """NumPy array of the same numbers, a view where it can be; half precision is widened."""
    if is_torch(array):
        torch = sys.modules["torch"]
        array = array.detach()
        if array.dtype in (torch.float16, torch.bfloat16):
            array = array.float()
        return array.cpu().numpy()
    if not isinstance(array, np.ndarray) and hasattr(array, "__dlpack__"):
        array = np.from_dlpack(array)
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def real_numpy(name: str, array: Any) -> np.ndarray:
    """`to_numpy` of real numbers: integers become float64; else only floats are allowed."""
    try:
        numbers = to_numpy(array)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} is not an array of numbers: {error}") from error
    if numbers.dtype.kind in "iub":
        numbers = numbers.astype(np.float64)
    if numbers.dtype.name not in _FLOATS:
        raise ArgumentError(f"{name} is {numbers.dtype}, expected float32 or float64")
    return numbers


@dataclass(frozen=True)
class Home:
    """A kind of array, its device and its floating dtype.

    Attributes:
        device: torch device; None is NumPy.
        dtype: "float32" or "float64"; that of samples, targets and heights.
    """

    device: Any = None
    dtype: str = "float32"

    @staticmethod
    def of(array: Any) -> Home:
        """Home of results that belong to `array`; half precision and integers widen to float32."""
        name = str(array.dtype).removeprefix("torch.")
        dtype = "float64" if name == "float64" else "float32"
        return Home(array.device if is_torch(array) else None, dtype)

    def bring(self, array: Any) -> Any:
        """`array` as this kind on this device; floats in the dtype of the home, integers as is."""
        if self.device is None:
            numbers = to_numpy(array)
            return numbers.astype(self.dtype, copy=False) if numbers.dtype.kind == "f" else numbers
        torch = sys.modules["torch"]
        if not is_torch(array):
            numbers = np.ascontiguousarray(to_numpy(array))
            array = torch.from_numpy(numbers if numbers.flags.writeable else numbers.copy())
        dtype = getattr(torch, self.dtype) if array.is_floating_point() else array.dtype
        return array.to(device=self.device, dtype=dtype)

    def floats(self, array: Any) -> Any:
        """`array` of this kind in the dtype of the home, integers too."""
        if self.device is None:
            return np.asarray(array).astype(self.dtype)
        return array.to(getattr(sys.modules["torch"], self.dtype))

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Uninitialised array of floats."""
        if self.device is None:
            return np.empty(shape, self.dtype)
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, self.dtype), device=self.device)

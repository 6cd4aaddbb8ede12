# SPDX-License-Identifier: Apache-2.0
"""Arrays of either kind: what the ops need of NumPy and of torch, and which kind an argument is.

torch is never imported here: where an argument is a tensor, the caller has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from otcuda._torch import need_torch
from otcuda.errors import ArgumentError, DeviceError, ShapeError

HALVES = ("float16", "bfloat16")
ON_GPU = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


class NumpyArrays:
    """What an op needs of NumPy: inputs made contiguous, outputs made, both sent as buffers."""

    @staticmethod
    def contiguous(array: np.ndarray) -> np.ndarray:
        """Row-major, in the byte order of this machine."""
        native_order = array.dtype.newbyteorder("=")
        return np.ascontiguousarray(array, native_order).reshape(array.shape)

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: str, like: Any) -> np.ndarray:
        """Uninitialised, on the device of `like`."""
        return np.empty(shape, dtype)

    @staticmethod
    def full(shape: tuple[int, ...], value: float, like: np.ndarray) -> np.ndarray:
        """Filled, with dtype and device of `like`."""
        return np.full(shape, value, like.dtype)

    @staticmethod
    def dense(array: np.ndarray) -> np.ndarray:
        """Row-major."""
        return np.ascontiguousarray(array)

    @staticmethod
    def is_contiguous(array: np.ndarray) -> bool:
        """Whether it is row-major, in the byte order of this machine."""
        return array.flags.c_contiguous and array.dtype.isnative

    @staticmethod
    def as_int64(array: np.ndarray) -> np.ndarray:
        """Integers in 64 bits."""
        return array.astype(np.int64)

    @staticmethod
    def widened(array: np.ndarray) -> np.ndarray:
        """float16 and bfloat16 as float32, which is exact; others as they are."""
        return array.astype(np.float32) if array.dtype.name in HALVES else array

    @staticmethod
    def all_finite(array: np.ndarray) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(np.isfinite(array).all())

    @staticmethod
    def dtype(array: np.ndarray) -> str:
        """Its name."""
        return array.dtype.name

    @staticmethod
    def native(array: np.ndarray) -> np.ndarray:
        """What crosses into C++."""
        return array

    @staticmethod
    def wrote(*arrays: np.ndarray) -> None:
        """C++ has written to them."""


class TorchArrays:
    """The same of torch; tensors go as DLPack capsules (20 times cheaper than `__dlpack__()`)."""

    @staticmethod
    def contiguous(tensor: Any) -> Any:
        """Row-major, apart from autograd."""
        return tensor.detach().resolve_neg().contiguous()

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Uninitialised, on the device of `like`."""
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)

    @staticmethod
    def full(shape: tuple[int, ...], value: float, like: Any) -> Any:
        """Filled, with dtype and device of `like`."""
        return like.new_full(shape, value)

    @staticmethod
    def dense(tensor: Any) -> Any:
        """Row-major, as autograd sees it."""
        return tensor.contiguous()

    @staticmethod
    def is_contiguous(tensor: Any) -> bool:
        """Whether it is row-major."""
        return tensor.is_contiguous() and not tensor.is_neg()

    @staticmethod
    def as_int64(tensor: Any) -> Any:
        """Integers in 64 bits."""
        return tensor.long()

    @staticmethod
    def widened(tensor: Any) -> Any:
        """float16 and bfloat16 as float32, which is exact; others as they are."""
        torch = sys.modules["torch"]
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

    @staticmethod
    def all_finite(tensor: Any) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(tensor.isfinite().all())

    @staticmethod
    def dtype(tensor: Any) -> str:
        """Its name."""
        return str(tensor.dtype).removeprefix("torch.")

    @staticmethod
    def native(tensor: Any) -> Any:
        """What crosses into C++."""
        return sys.modules["torch"].utils.dlpack.to_dlpack(tensor.detach())

    @staticmethod
    def wrote(*tensors: Any) -> None:
        """Tells autograd, which cannot see it, that C++ has written to them."""
        for tensor in tensors:
            sys.modules["torch"].autograd.graph.increment_version(tensor)


def is_torch(array: Any) -> bool:
    """Whether it is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def needs_dispatcher(*tensors: Any) -> bool:
    """Whether a gradient, compiler, subclass or mode is watching: torch.ops must see the call."""
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    grad = torch.is_grad_enabled()
    return any(
        type(t) is not torch.Tensor or t.is_meta or (grad and t.requires_grad) for t in tensors
    )


def as_numpy(op: str, **arrays: Any) -> list[np.ndarray | None]:
    """The arguments as NumPy arrays, without a copy where they speak DLPack or buffers."""
    converted = []
    for name, array in arrays.items():
        if array is None or isinstance(array, np.ndarray):
            converted.append(array)
        elif is_torch(array):
            raise ArgumentError(
                f"{op}: {name} is a torch tensor, the first argument is not; pass one kind"
            )
        else:
            converted.append(_as_numpy(array))
    return converted


def _as_numpy(array: Any) -> np.ndarray:
    try:
        return np.from_dlpack(array)
    except (AttributeError, RuntimeError, TypeError, BufferError):  # bfloat16, or no DLPack at all
        return np.asarray(array)


def on_gpu(array: Any) -> bool:
    """Whether it is an array of a CUDA device that is no torch tensor, such as CuPy's."""
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and not is_torch(array) and int(device()[0]) in ON_GPU


def as_tensors(op: str, **arrays: Any) -> list[Any]:
    """Arrays of a CUDA device as torch tensors, without a copy: torch has streams and memory.

    Raises:
        BackendError: torch is not installed.
        DeviceError: torch has no CUDA, or an array is not on the device of the first.
    """
    torch = need_torch(f"{op} on arrays of a CUDA device")
    for name, array in arrays.items():
        if array is not None and not (on_gpu(array) or is_torch(array)):
            raise DeviceError(f"{op}: {name} lies in host memory, the first argument does not")
    try:
        return [None if a is None else torch.from_dlpack(a) for a in arrays.values()]
    except (AssertionError, RuntimeError) as error:
        raise DeviceError(f"{op}: torch cannot reach the device of the arrays: {error}") from error


def taken(op: str, **given: Any) -> tuple[Any, list[Any]]:
    """What an op works on: the kind of arrays, and the arguments as that, halves widened.

    Raises:
        ArgumentError, DeviceError: they are not of one kind, or lie on different devices.
    """
    first = next(iter(given.values()))
    if is_torch(first):
        check_torch(op, **given)
        arrays, held = TorchArrays, list(given.values())
    elif on_gpu(first):
        arrays, held = TorchArrays, as_tensors(op, **given)
    else:
        arrays, held = NumpyArrays, as_numpy(op, **given)
    return arrays, [None if array is None else arrays.widened(array) for array in held]


def like_first(first: Any, *results: Any) -> Any:
    """Results as the kind that came in, by its own from_dlpack; NumPy arrays where it has none."""
    if not isinstance(first, np.ndarray) and not is_torch(first):
        if hasattr(first, "__array_namespace__"):
            namespace = first.__array_namespace__()
        else:
            namespace = sys.modules.get(type(first).__module__.partition(".")[0])
        if hasattr(namespace, "from_dlpack"):
            results = tuple(namespace.from_dlpack(result) for result in results)
    return results[0] if len(results) == 1 else results


def check_torch(op: str, **tensors: Any) -> None:
    """All are torch tensors of one device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not is_torch(tensor):
            kind = type(tensor).__name__
            raise ArgumentError(f"{op}: {name} is {kind}, {first_name} is a torch tensor")
        if tensor.device != first.device:
            raise DeviceError(
                f"{op}: {name} lies on {tensor.device}, {first_name} on {first.device}; move one"
            )


def check_writable(op: str, **arrays: Any) -> None:
    """All are NumPy arrays, so that what is written into them is seen by the caller."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            kind = type(array).__name__
            raise ArgumentError(
                f"{op}: {name} is {kind}; it is written to, so pass a NumPy array or torch tensor"
            )


def check_floats(op: str, arrays: type, **tensors: Any) -> None:
    """All are float32, or all float64."""
    dtypes = [arrays.dtype(tensor) for tensor in tensors.values()]
    if dtypes[0] not in ("float32", "float64") or len(set(dtypes)) > 1:
        names, given = ", ".join(tensors), ", ".join(dtypes)
        raise ArgumentError(f"{op}: {names} are {given}; expected all float32 or all float64")


# --- CUDA: `native` is the module _C, which _ops alone imports


def on_cuda(native: Any, array: Any) -> bool:
    """Whether the CUDA kernels of this build are to work on it."""
    return is_torch(array) and array.is_cuda and native.build_options()["cuda"]


def cuda_stream(native: Any, array: Any) -> tuple[int, ...]:
    """Torch's current stream there, the last argument of a call on CUDA; nothing elsewhere."""
    if not on_cuda(native, array):
        return ()
    return (sys.modules["torch"].cuda.current_stream(array.device).cuda_stream,)


def cuda_workspace(native: Any, op: str, array: Any, *sizes: int) -> Any:
    """What native.<op>_workspace(*sizes) asks for, from torch's allocator, beside `array`."""
    torch = sys.modules["torch"]
    count = getattr(native, f"{op}_workspace")(*sizes)
    return torch.empty(count, dtype=torch.uint8, device=array.device)


def raise_cell_mass_faults(workspace: Any, N: int, index: Any, weights: Any = None) -> None:
    """Asks the device, which cannot raise, what it met: this waits for it."""
    stray, infinite = workspace[:16].view(sys.modules["torch"].int64).tolist()
    if stray >= 0:
        raise ArgumentError(
            f"index[{stray}] is {int(index[stray])}, expected -1 (left out) to N - 1 = {N - 1}"
        )
    if infinite >= 0:
        raise ArgumentError(f"weights[{infinite}] is not finite; weights are finite numbers")


# --- out=


def _span(array: Any) -> tuple[int, int]:
    """Where its elements lie in memory, for arrays of any layout."""
    if is_torch(array):
        first, item, strides = array.data_ptr(), array.element_size(), array.stride()
        steps = [step * item for step in strides]
    else:
        first, item = array.__array_interface__["data"][0], array.itemsize
        steps = list(array.strides)
    if 0 in array.shape:
        return first, first
    ends = [(size - 1) * step for size, step in zip(array.shape, steps, strict=True)]
    low, high = sum(min(end, 0) for end in ends), sum(max(end, 0) for end in ends)
    return first + low, first + high + item


def check_out(
    op: str, arrays: Any, out: Any, shape: tuple[int, ...], dtype: str, inputs: list[Any]
) -> tuple[Any, Any]:
    """The arrays of `out=(value, index)`, if the results can be written into them.

    Raises:
        ShapeError, ArgumentError, DeviceError: what is wrong with which of them.
    """
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ArgumentError(f"{op}: out is {type(out).__name__}, expected a pair (value, index)")
    for name, array, wanted in (("out[0]", out[0], dtype), ("out[1]", out[1], "int64")):
        if arrays is NumpyArrays:
            check_writable(op, **{name: array})
            if not array.flags.writeable:
                raise ArgumentError(f"{op}: {name} is read-only")
        else:
            check_torch(op, x=inputs[0], **{name: array})
        if tuple(array.shape) != tuple(shape):
            raise ShapeError(f"{op}: {name} is {list(array.shape)}, expected {list(shape)}")
        if arrays.dtype(array) != wanted:
            raise ArgumentError(f"{op}: {name} is {arrays.dtype(array)}, expected {wanted}")
    spans = [_span(array) for array in (*out, *inputs)]
    for k in (0, 1):
        begin, end = spans[k]
        if any(begin < high and low < end for low, high in spans[k + 1 if k else 1 :]):
            raise ArgumentError(f"{op}: out[{k}] shares memory with another argument")
    return out[0], out[1]

# SPDX-License-Identifier: Apache-2.0
"""Schema, fake, gradient and public function of each op. Alone in importing the native core `_C`.

An op takes torch tensors, NumPy arrays or anything with `__dlpack__`, and gives the same kind back
on the same device. torch is never imported here: it is used when the caller has imported it. A call
goes straight to C++, or through `torch.ops.otcuda` where a gradient or a compiler is watching.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from otcuda import _C as native  # noqa: N811 - the one place that imports it
from otcuda._arrays import (
    NumpyArrays,
    TorchArrays,
    check_writable,
    cuda_stream,
    cuda_workspace,
    is_torch,
    like_first,
    needs_dispatcher,
    on_cuda,
    raise_cell_mass_faults,
    taken,
)
from otcuda.errors import ArgumentError, ShapeError, check_shapes

# --- switches -------------------------------------------------------------------------------------


def set_num_threads(n: int) -> None:
    """Threads that an op may use; 0: back to OTCUDA_NUM_THREADS or the cores of this process."""
    native.set_num_threads(n)


def set_simd_level(level: str) -> None:
    """Force "portable", "avx2" or "avx512"; "auto": back to OTCUDA_SIMD or the best of this CPU.

    "vnni" is avx512 with the byte products of VNNI where a kernel uses them, "avx512" without.
    Screens go on with products of bfloat16 where bytes give up and the CPU has them; "vnni" keeps
    to bytes, "bf16" has bfloat16 in their place.

    Raises:
        BackendError: this CPU or build does not have the level.
    """
    native.set_simd_level(level)


def set_memory_limit(bytes: int) -> None:
    """Limit in bytes on what the native core holds at once, else LimitError; 0 is no limit."""
    native.set_memory_limit(bytes)


def respect_torch_threads() -> None:
    """Lets the core use as many threads as torch does, where torch is loaded."""
    count = getattr(sys.modules.get("torch"), "get_num_threads", None)
    native.set_host_num_threads(count() if count else 0)


def backend_info(reset: bool = False) -> dict[str, Any]:
    """What the core runs on, and which paths ran since the last reset.

    Args:
        reset: forget the paths after reading them.

    Returns:
        simd_level and simd_levels; simd_vnni (whether byte products are in use); num_threads;
        cuda (whether compiled in) and cuda_absent_reason; compiler; paths: "op/path" -> calls and
        items (samples, targets or numbers worked on), for what has run: docs/ops.md lists them.

    >>> import otcuda
    >>> before = otcuda.backend_info(reset=True)
    >>> _ = otcuda.cell_mass([2, 0, 2], 4)
    >>> otcuda.backend_info()["paths"]
    {'cell_mass/cpu': {'calls': 1, 'items': 3}}
    """
    info = {
        "simd_level": native.simd_level(),
        "simd_levels": native.simd_levels(),
        "simd_vnni": native.simd_vnni(),
        "num_threads": native.num_threads(),
        **native.build_options(),
        "paths": native.backend_paths(),
    }
    if reset:
        native.reset_backend_paths()
    return info


# --- registration with torch ------------------------------------------------------------------

_registrations: list[Callable[[Any, Any], None]] = []  # those that torch has not heard of


def registers(function: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Decorates function(torch, library): it tells torch of an op when torch is first used."""
    _registrations.append(function)
    return function


def define(torch: Any, library: Any, schema: str, kernel: Callable, fake: Callable) -> None:
    """Schema, kernel of both devices and fake of one op."""
    name = schema[: schema.index("(")]
    library.define(schema)
    library.impl(name, kernel, "CPU")
    library.impl(name, kernel, "CUDA")
    torch.library.register_fake(f"otcuda::{name}", fake, lib=library)


@functools.cache
def _library() -> Any:
    return sys.modules["torch"].library.Library("otcuda", "FRAGMENT")  # lives as long as its ops


def torch_ops() -> Any:
    """torch.ops.otcuda, with every op that has been imported registered."""
    torch = sys.modules["torch"]
    while _registrations:
        _registrations.pop(0)(torch, _library())
    return torch.ops.otcuda


def registered() -> bool:
    """Registers the ops while Dynamo is tracing: it runs what is marked and keeps the result."""
    torch_ops()
    return True


registered._dynamo_marked_constant = True


# --- cell_mass ------------------------------------------------------------------------------------


def cell_mass(index: Any, N: int, weights: Any = None) -> Any:
    """How much of the samples lies in each cell: `#{b : index_b = i}`, or the sum of their weights.

    Deterministic on any number of threads: weights are added in fixed point, with an absolute error
    of at most `B^2 max|weights| 2^-62` before the one rounding to the dtype of `weights`.

    Args:
        index: cells, [B], int64 or int32, in [0, N); -1 (power_argmax's mark for a row of NaN) is
            left out.
        N: number of cells, at least 1.
        weights: weights of the samples, [B], float32 or float64, finite; float16 and bfloat16 are
            widened to float32; None counts.

    Returns:
        mass, [N]: int64 counts, or sums in the dtype added up in; differentiable in `weights`.

    Raises:
        ShapeError: index and weights do not fit together.
        ArgumentError: an index outside [-1, N), weights that are not finite, a wrong dtype, N < 1.
        DeviceError: the tensors lie on different devices.

    >>> import numpy as np
    >>> cell_mass(np.array([2, 0, 2]), 4)
    array([1, 0, 2, 0])
    """
    kind, (arrays, (index, weights)) = index, taken("cell_mass", index=index, weights=weights)
    if arrays.dtype(index) == "int32":  # JAX has no int64 unless asked
        index = arrays.as_int64(index)
    watched = () if weights is None else (weights,)
    if arrays is TorchArrays and needs_dispatcher(index, *watched) and registered():
        return sys.modules["torch"].ops.otcuda.cell_mass.default(index, N, weights)
    return like_first(kind, _cell_mass(index, N, weights, arrays))


def _check_cell_mass(index: Any, N: int, weights: Any, arrays: Any) -> None:
    check_shapes("cell_mass", index=(index, "B"), weights=(weights, "B"))
    if arrays.dtype(index) != "int64":
        raise ArgumentError(f"cell_mass: index is {arrays.dtype(index)}, expected int64")
    if N < 1:
        raise ArgumentError(f"cell_mass: N is {N}, expected at least 1")
    if weights is not None and arrays.dtype(weights) not in ("float32", "float64"):
        raise ArgumentError(
            f"cell_mass: weights is {arrays.dtype(weights)}, expected float32 or float64"
        )


def _cell_mass(index: Any, N: int, weights: Any, arrays: Any) -> Any:
    _check_cell_mass(index, N, weights, arrays)
    respect_torch_threads()
    given = [arrays.contiguous(a) for a in (index, weights) if a is not None]
    mass = arrays.empty((N,), "int64" if weights is None else arrays.dtype(weights), index)
    if on_cuda(native, index):
        workspace = cuda_workspace(native, "cell_mass", index, N, weights is not None)
        native.cell_mass(
            *map(arrays.native, (*given, mass, workspace)), *cuda_stream(native, index)
        )
        raise_cell_mass_faults(workspace, N, *given)
    else:
        native.cell_mass(*map(arrays.native, (*given, mass)))
    return mass


@registers
def _register_cell_mass(torch: Any, library: Any) -> None:

    def kernel(index, N, weights=None):
        return _cell_mass(index, N, weights, TorchArrays)

    def fake(index, N, weights=None):
        _check_cell_mass(index, N, weights, TorchArrays)
        like = index if weights is None else weights
        return like.new_empty((N,))

    def setup(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    def backward(ctx, grad):  # mass is linear in the weights: each sample hears from its own cell
        (index,) = ctx.saved_tensors
        return None, None, torch.where(index >= 0, grad[index.clamp(min=0)], 0)

    schema = "cell_mass(Tensor index, SymInt N, Tensor? weights=None) -> Tensor"
    define(torch, library, schema, kernel, fake)
    torch.library.register_autograd("otcuda::cell_mass", backward, setup_context=setup, lib=library)


# --- source_samples ---------------------------------------------------------------------------


def source_samples(
    out: Any, source: str = "normal", *, seed: int = 0, stream: int = 0, offset: int = 0
) -> Any:
    """Fill `out` with samples of a source: numbers `(offset + b) D + d` of a Philox sequence.

    The numbers depend on seed, stream and position alone: the same bits on every device, level and
    number of threads, and any part can be drawn again without the rest.

    Args:
        out: where to, [B, D], float32 or float64 (which then holds float32 numbers), contiguous.
        source: "normal"; "uniform" on the cube (0, 1)^D; "gaussian_cdf", the paper's noise: a
            normal taken through its own distribution function onto [0, 1]^D.
        seed: key of the sequence, 0 to 2^64 - 1.
        stream: which of the 2^64 sequences of the seed; heights_adam_solve uses the step number.
        offset: number of the first sample.

    Returns:
        `out`.

    Raises:
        ShapeError: out is not [B, D].
        ArgumentError: an unknown source, a dtype or layout that is not allowed, a read-only array.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.

    >>> import numpy as np
    >>> source_samples(np.empty((1, 3)), "uniform", seed=7).round(3).tolist()
    [[0.955, 0.75, 0.114]]
    """
    numbers = tuple(operator.index(number) % 2**64 for number in (seed, stream, offset))
    if is_torch(out):
        if needs_dispatcher(out) and registered():
            # Schemas know signed integers only; the kernel takes them back modulo 2^64.
            signed = [n - 2**64 if n >= 2**63 else n for n in numbers]
            sys.modules["torch"].ops.otcuda.source_samples.default(out, source, *signed)
        else:
            _source_samples(out, source, *numbers, TorchArrays)
        return out
    check_writable("source_samples", out=out)
    _source_samples(out, source, *numbers, NumpyArrays)
    return out


def _check_source_samples(out: Any, source: str, arrays: Any) -> None:
    check_shapes("source_samples", out=(out, "B D"))
    if source not in ("normal", "uniform", "gaussian_cdf"):
        raise ArgumentError(
            f"source_samples: source is {source!r}, expected normal, uniform or gaussian_cdf"
        )
    if arrays.dtype(out) not in ("float32", "float64"):
        raise ArgumentError(
            f"source_samples: out is {arrays.dtype(out)}, expected float32 or float64"
        )


def _source_samples(
    out: Any, source: str, seed: int, stream: int, offset: int, arrays: Any
) -> None:
    _check_source_samples(out, source, arrays)
    respect_torch_threads()
    numbers = (number % 2**64 for number in (seed, stream, offset))
    native.source_samples(arrays.native(out), source, *numbers, *cuda_stream(native, out))
    arrays.wrote(out)


@registers
def _register_source_samples(torch: Any, library: Any) -> None:

    def kernel(out, source, seed, stream, offset):
        _source_samples(out, source, seed, stream, offset, TorchArrays)

    def fake(out, source, seed, stream, offset):
        _check_source_samples(out, source, TorchArrays)

    schema = "source_samples(Tensor(a!) out, str source, int seed, int stream, int offset) -> ()"
    define(torch, library, schema, kernel, fake)


# --- coding: tables, range64, rans32 -------------------------------------------------------------
# What otcuda.coding is made of. Arrays are NumPy's, contiguous, in host memory: coding is serial,
# but for rans32 and messages of range64, which also work on tensors of a CUDA device.

NativeTables = native.Tables
NativeCausalPrior = native.CausalPrior
NativeRangeEncoder = native.RangeEncoder
NativeRangeDecoder = native.RangeDecoder
range64_encode = native.range64_encode
range64_decode = native.range64_decode
range64_encode_many = native.range64_encode_many
range64_decode_many = native.range64_decode_many
adaptive_learn = native.adaptive_learn
range64_encode_rows = native.range64_encode_rows
range64_decode_rows = native.range64_decode_rows
NativeCompatEncoder = native.CompatEncoder
NativeCompatDecoder = native.CompatDecoder
rans32_encode = native.rans32_encode
rans32_decode = native.rans32_decode
rans32_device_bytes = native.rans32_device_bytes


def range64_device_bytes(
    tables: native.Tables, symbols: Any, messages: int
) -> tuple[int, int, int]:
    """Bytes of data for any symbols of this dtype, workspaces of encoding and decoding."""
    return native.range64_device_bytes(tables, TorchArrays.native(symbols), messages)


def range64_run_cuda(
    verb: str, tables: native.Tables, given: tuple[Any, ...], message: tuple[Any, ...]
) -> None:
    """range64_encode_messages or range64_decode_messages on the current stream of a device.

    Args:
        verb: "encode" or "decode".
        tables: of a `Tables`.
        given: tensors image, symbols [n], index [n] or None, workspace.
        message: tensors ends, data, byte_ends, faults: csrc/cuda/range64.h.
    """
    image, symbols, index, workspace = (
        None if tensor is None else TorchArrays.native(tensor) for tensor in given
    )
    run = getattr(native, f"range64_{verb}_messages")
    parts = tuple(map(TorchArrays.native, message))
    run(tables, image, symbols, index, parts, workspace, *cuda_stream(native, given[1]))


def rans32_on_cuda(array: Any) -> bool:
    """Whether the kernels of csrc/cuda/rans32.h are to work on it."""
    return on_cuda(native, array)


def rans32_image(tables: native.Tables) -> np.ndarray:
    """The tables as a device reads them, uint32: csrc/common/rans32_lookup.h."""
    image = np.empty(native.rans32_shape(tables)[-1], np.uint32)
    native.rans32_image(tables, image)
    return image


def rans32_run_cuda(
    verb: str, tables: native.Tables, given: tuple[Any, ...], block: int, message: tuple[Any, ...]
) -> None:
    """rans32_encode or rans32_decode on the current stream of a device.

    Args:
        verb: "encode" or "decode".
        tables: of a `Tables`.
        given: tensors image, symbols [n], index [n] or None, workspace.
        block: symbols of a block.
        message: tensors data, directory, size, faults: csrc/cuda/rans32.h.
    """
    image, symbols, index, workspace = (
        None if tensor is None else TorchArrays.native(tensor) for tensor in given
    )
    run = getattr(native, f"rans32_{verb}")
    parts = tuple(map(TorchArrays.native, message))
    stream = cuda_stream(native, given[1])
    run(tables, image, symbols, index, block, parts, workspace, *stream)


def quantise_weights(weights: np.ndarray, precision: int, escape: bool) -> np.ndarray:
    """Weights [T, n], uint32 -> frequencies [T, n], uint32. Contract: csrc/common/tables.h."""
    frequencies = np.empty(weights.shape, np.uint32)
    native.quantise_weights(weights, precision, escape, frequencies)
    return frequencies


def density_weights(density: str, scale_q16: np.ndarray, low: int, n: int) -> np.ndarray:
    """Weights [T, n], uint32, of "gaussian" or "laplace" densities of scales [T] in 2^-16."""
    weights = np.empty((len(scale_q16), n), np.uint32)
    fill = {"gaussian": native.gaussian_weights, "laplace": native.laplace_weights}[density]
    fill(scale_q16, low, weights)
    return weights


def symbol_sum(symbols: np.ndarray) -> int:
    """The check of docs/coding.md over symbols of any shape, in C order."""
    return native.symbol_sum(symbols.reshape(-1))


# --- context_net ----------------------------------------------------------------------------------
# Weights are loaded once and stay in the core: these are calls on a handle, and no torch ops. The
# public face is otcuda.codec.integer_context.


def load_context_net(arrays: dict[str, np.ndarray]) -> native.ContextNet:
    """Handle of an integer context model; names and shapes in `otcuda.codec.integer_context`.

    Raises:
        ArgumentError: an array is missing, of the wrong dtype, or its numbers are not allowed.
        ShapeError: the shapes do not fit together.
    """
    return native.ContextNet({name: np.ascontiguousarray(a) for name, a in arrays.items()})


def _off_mask(off: Any) -> np.ndarray | None:
    return None if off is None else np.ascontiguousarray(off, np.uint8)


def _planes(op: str, name: str, array: Any, dtype: type) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != 3:
        raise ShapeError(f"{op} takes {name} [M, h, w]; got {list(array.shape)}")
    if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and dtype is not np.float32):
        raise ArgumentError(f"{op}: {name} is {array.dtype}, expected {np.dtype(dtype).name}")
    if dtype is np.int16 and array.size and np.abs(array.astype(np.int64)).max() > 32767:
        raise ArgumentError(f"{op}: {name} holds values outside int16")
    return np.ascontiguousarray(array, dtype)


def context_quantise(
    net: native.ContextNet, u: Any, k: int, off: Any, multiplier: float | None, callback: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Symbols, values, scale_index and bits of u, [M, h, w]; multiplier None: nearest."""
    u = _planes("context_quantise", "u", u, np.float32)
    outputs = np.empty(u.shape, np.int16), np.empty(u.shape, np.int16), np.empty(u.shape, np.uint8)
    conditional = multiplier is not None
    bits = net.quantise(
        u, k, _off_mask(off), conditional, float(multiplier or 0.0), outputs, callback
    )
    return *outputs, bits


def context_measure(
    net: native.ContextNet, symbols: Any, k: int, off: Any, callback: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """values, scale_index [M, h, w] and bits of symbols [M, h, w]."""
    symbols = _planes("context_measure", "symbols", symbols, np.int16)
    values, scale_index = np.empty(symbols.shape, np.int16), np.empty(symbols.shape, np.uint8)
    bits = net.measure(symbols, k, _off_mask(off), values, scale_index, callback)
    return values, scale_index, bits


def context_encode(net: native.ContextNet, symbols: Any, k: int, off: Any, callback: Any) -> bytes:
    """Payload of symbols [M, h, w]."""
    symbols = _planes("context_encode", "symbols", symbols, np.int16)
    return net.encode(symbols, k, _off_mask(off), callback)


def context_decode(
    net: native.ContextNet, payload: Any, k: int, grid: tuple[int, int], off: Any, callback: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and values [M, h, w] of a payload."""
    h, w = grid
    if not (min(h, w) >= 1 and h * w <= 1 << 26):
        raise ArgumentError(f"context_decode: the grid is {h} x {w}, expected 1 to 2^26 positions")
    data = np.frombuffer(payload, np.uint8)
    symbols = np.empty((net.channels, h, w), np.int16)
    values = np.empty((net.channels, h, w), np.int16)
    net.decode(data, k, _off_mask(off), symbols, values, callback)
    return symbols, values

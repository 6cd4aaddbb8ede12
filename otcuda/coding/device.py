# SPDX-License-Identifier: Apache-2.0
"""Messages that stay on a CUDA device: tensors in, tensors out, nothing waits for the device."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import checked, whole
from otcuda.coding.tables import Tables
from otcuda.errors import ArgumentError, CorruptDataError, DeviceError, ShapeError

DTYPES = ("uint8", "int16", "int32", "int64")  # of symbols and index
_FAULTS = {  # RansFault of csrc/common/rans32_lookup.h
    1: "begins with a state that no encoder leaves",
    2: "reaches beyond the end",
    3: "is not padded with zeros",
    4: "ends early",
    5: "holds an escaped symbol that no encoder writes",
    6: "is damaged, or tables or index are not those it was written with",
    7: "gives symbols of another check: it is damaged, or tables or index differ",
    8: "would begin where the message should end",
}


@dataclass(frozen=True)
class DeviceMessage:
    """Blocks of rans32 on a device, of `encode_blocks`; their format is that of docs/coding.md.

    Attributes:
        data: blocks one after the other, uint8 [room]; the first `size` bytes count.
        directory: words, side bytes and check of each block, uint32 [blocks, 3].
        size: bytes of data in use, int64 [1].
        faults: what the last call could not do, int64 [3], -1 for nothing: csrc/cuda/rans32.h.
        symbols: how many there are.
        block_symbols: of a block, a multiple of 32.
        dtype: of the symbols, by name.
    """

    data: Any
    directory: Any
    size: Any
    faults: Any
    symbols: int
    block_symbols: int
    dtype: str

    def host(self) -> tuple[np.ndarray, bytes]:
        """Directory and blocks in host memory; waits for the device."""
        used = int(self.size.item())
        return self.directory.cpu().numpy(), self.data[:used].cpu().numpy().tobytes()

    def parts(self) -> tuple[Any, ...]:
        """The tensors in the order of a call."""
        return self.data, self.directory, self.size, self.faults


def takes(array: Any) -> bool:
    """Whether it is a tensor on a CUDA device, in a build with kernels for it."""
    return _ops.rans32_on_cuda(array)


def can_code(symbols: Any, index: Any) -> bool:
    """Whether `encode_blocks` takes them; what it does not goes through host memory."""
    given = (symbols,) if index is None else (symbols, index)
    return all(takes(tensor) and dtype_name(tensor) in DTYPES for tensor in given)


def encode_blocks(
    symbols: Any, tables: Tables, index: Any = None, block_symbols: int = 8192, check: bool = True
) -> DeviceMessage:
    """Symbols on a CUDA device as blocks of rans32 there.

    The bytes are those of `encode_long` behind its head. Works on torch's current stream.

    Args:
        symbols: tensor on a CUDA device, of any shape; uint8, int16, int32 or int64.
        tables: the model; the first use on a device copies it there.
        index: table of each symbol, of the shape of `symbols`, in any of these dtypes.
        block_symbols: a multiple of 32, the work of a warp; a block costs about 108 bytes.
        check: whether to wait and raise what could not be coded. Without it nothing waits, calls
            can be captured in a CUDA graph, and `raise_faults` tells later.

    Raises:
        ArgumentError: another dtype, a symbol without a code, an index that is no table.
        ShapeError: symbols and index of different shapes.
        DeviceError: symbols or index are not on a CUDA device, or there are no kernels for it.
    """
    checked("encode_blocks", "tables", tables, Tables)
    block_symbols = whole("encode_blocks", "block_symbols", block_symbols, 32, 2**28)
    check_on_device("encode_blocks", "symbols", symbols)
    flat, flat_index = flat_on_device("encode_blocks", symbols, index, tables)
    torch = sys.modules["torch"]
    n = flat.numel()
    room, workspace, _ = _ops.rans32_device_bytes(tables._native, n, block_symbols)
    count = -(-n // block_symbols)

    def empty(shape: Any, dtype: str) -> Any:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=flat.device)

    message = DeviceMessage(
        empty(room, "uint8"),
        empty((count, 3), "uint32"),
        empty(1, "int64"),
        empty(3, "int64"),
        n,
        block_symbols,
        dtype_name(symbols),
    )
    given = (image_on(tables, flat), flat, flat_index, empty(workspace, "uint8"))
    _ops.rans32_run_cuda("encode", tables._native, given, block_symbols, message.parts())
    if check:
        raise_faults(message, tables, flat, flat_index)
    return message


def decode_blocks(
    message: DeviceMessage, tables: Tables, index: Any = None, check: bool = True
) -> Any:
    """The inverse of `encode_blocks`, on the device of the message.

    Args:
        message: of `encode_blocks`.
        tables: the model it was written with.
        index: as it was when encoding; it gives the shape of the result, else that is flat.
        check: as in `encode_blocks`. Symbols are to be trusted only after it.

    Raises:
        CorruptDataError: damaged bytes, or other tables or another index than when encoding.
        ArgumentError, ShapeError, DeviceError: as `encode_blocks`.
    """
    checked("decode_blocks", "tables", tables, Tables)
    checked("decode_blocks", "message", message, DeviceMessage)
    flat, flat_index = room_on_device("decode_blocks", message, tables, index)
    n = message.symbols
    workspace = _ops.rans32_device_bytes(tables._native, n, message.block_symbols)[2]
    scratch = flat.new_empty(workspace, dtype=sys.modules["torch"].uint8)
    given = (image_on(tables, flat), flat, flat_index, scratch)
    _ops.rans32_run_cuda("decode", tables._native, given, message.block_symbols, message.parts())
    if check:
        raise_faults(message, tables, None, flat_index)
    return flat if index is None else flat.reshape(index.shape)


def raise_faults(message: DeviceMessage, tables: Tables, symbols: Any, index: Any) -> None:
    """Raises what the last call could not do; waits for the device.

    Args:
        message: of the call.
        tables: of the call.
        symbols: flat, what was encoded; None after decoding.
        index: flat, of the call, or None.
    """
    damage, stray, unfit = message.faults.tolist()
    raise_strays(stray, unfit, tables, symbols, index)
    if damage >= 0:
        raise CorruptDataError(f"block {damage >> 8} of the message {_FAULTS[damage & 255]}")
    if unfit >= 0:
        raise CorruptDataError(f"symbol {unfit} of the message does not fit {message.dtype}")


def raise_strays(stray: int, unfit: int, tables: Tables, symbols: Any, index: Any) -> None:
    """Raises for the first index that is no table, or the first symbol that could not be coded."""
    if stray >= 0:
        raise ArgumentError(
            f"index[{stray}] is {int(index[stray])}, expected 0 .. {tables.count - 1}"
        )
    if unfit >= 0 and symbols is not None:
        high = tables.low + tables.symbols - 1
        span = "-2147483648 .. 2147483647" if tables.escape else f"{tables.low} .. {high}"
        raise ArgumentError(f"symbols[{unfit}] is {int(symbols[unfit])}, expected {span}")


def upload(
    blocks: bytes, directory: np.ndarray, n: int, block: int, dtype: np.dtype, like: Any
) -> DeviceMessage:
    """A message in host memory as one on the device of `like`."""
    torch = sys.modules["torch"]

    def put(array: np.ndarray) -> Any:
        return torch.from_numpy(array).to(like.device)

    data = put(np.frombuffer(blocks, np.uint8).copy())
    size, faults = put(np.array([len(blocks)])), put(np.zeros(3, np.int64))
    return DeviceMessage(data, put(directory), size, faults, n, block, dtype.name)


def image_on(tables: Tables, like: Any) -> Any:
    """The tables on the device of `like`, copied there at the first use."""
    if like.device not in tables._images:
        image = _ops.rans32_image(tables._native)
        tables._images[like.device] = sys.modules["torch"].from_numpy(image).to(like.device)
    return tables._images[like.device]


def dtype_name(tensor: Any) -> str:
    """int32, not torch.int32."""
    return str(tensor.dtype).removeprefix("torch.")


def check_on_device(op: str, name: str, tensor: Any) -> None:
    """DeviceError unless kernels here can work on it."""
    if not takes(tensor):
        raise DeviceError(
            f"{op}: {name} is no tensor on a CUDA device, or this build has no kernels for it "
            "(otcuda doctor says why); encode_long takes arrays in host memory"
        )


def flat_on_device(op: str, symbols: Any, index: Any, tables: Tables) -> tuple[Any, Any]:
    """Contiguous and flat; what is missing or of a wrong dtype or shape is named."""
    flat = []
    for name, tensor in (("symbols", symbols), ("index", index)):
        if name == "index" and tensor is None:
            flat.append(None)
            continue
        check_on_device(op, name, tensor)
        if dtype_name(tensor) not in DTYPES:
            raise ArgumentError(
                f"{op}: {name} is {dtype_name(tensor)}, expected {', '.join(DTYPES)}"
            )
        flat.append(tensor.detach().reshape(-1).contiguous())
    if index is None and tables.count > 1:
        raise ArgumentError(f"{op}: index is missing, but there are several tables")
    if index is not None and symbols.shape != index.shape:
        raise ShapeError(
            f"{op} takes symbols and index of one shape; got symbols {list(symbols.shape)}, "
            f"index {list(index.shape)}"
        )
    return flat[0], flat[1]


def room_on_device(op: str, message: Any, tables: Tables, index: Any) -> tuple[Any, Any]:
    """Room for the symbols of a message beside its data, and the index; both flat."""
    check_on_device(op, "the message", message.data)
    n, torch = message.symbols, sys.modules["torch"]
    if index is not None and index.numel() != n:
        raise ShapeError(f"{op}: {n} symbols, but index has {list(index.shape)}")
    symbols = torch.empty(n, dtype=getattr(torch, message.dtype), device=message.data.device)
    return flat_on_device(op, symbols, None if index is None else index.reshape(-1), tables)

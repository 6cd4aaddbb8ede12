# SPDX-License-Identifier: Apache-2.0
"""Many messages of range64 on a CUDA device, one a thread; nothing waits for the device."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda import _ops
from otcuda.coding.arguments import checked, raw_bytes, several, shown
from otcuda.coding.arrays import integers
from otcuda.coding.device import (
    DTYPES,
    check_on_device,
    dtype_name,
    flat_on_device,
    image_on,
    raise_strays,
    room_on_device,
)
from otcuda.coding.tables import Tables
from otcuda.errors import ArgumentError, CorruptDataError, DeviceError, ShapeError

_FAULTS = {  # RangeFault of csrc/common/range64_symbols.h
    1: "has ends that do not follow those before it, or not the last symbol at its end",
    2: "has byte_ends that do not follow those before it, or bytes beyond the end of the data",
    3: "holds a step that no encoder writes",
    4: "is damaged, or symbols were left",
}


@dataclass(frozen=True)
class DeviceMessages:
    """Messages of range64 on a device, of `encode_messages`: what `encode_batch` writes.

    Attributes:
        ends: message k holds the symbols ends[k-1] .. ends[k] - 1 (from 0), int64 [messages].
        data: messages one after the other, uint8 [room].
        byte_ends: where each ends in `data`, int64 [messages].
        faults: what the last call could not do, int64 [3], -1 for nothing: csrc/cuda/range64.h.
        symbols: how many there are in all.
        dtype: of the symbols, by name.
    """

    ends: Any
    data: Any
    byte_ends: Any
    faults: Any
    symbols: int
    dtype: str

    def host(self) -> list[bytes]:
        """The messages in host memory; waits for the device."""
        byte_ends = self.byte_ends.tolist()
        data = self.data[: byte_ends[-1] if byte_ends else 0].cpu().numpy().tobytes()
        return [data[a:b] for a, b in itertools.pairwise([0, *byte_ends])]

    def parts(self) -> tuple[Any, ...]:
        """The tensors in the order of a call."""
        return self.ends, self.data, self.byte_ends, self.faults


def encode_messages(
    symbols: Any, tables: Tables, ends: Any, index: Any = None, check: bool = True
) -> DeviceMessages:
    """`encode_batch` on a CUDA device: the same bytes, all messages in one launch.

    Worth it from some 10,000 messages on; fewer leave a device idle. Works on torch's current
    stream.

    Args:
        symbols: of all messages, one after the other: tensor on a CUDA device, flat; uint8, int16,
            int32 or int64.
        tables: the model; the first use on a device copies it there.
        ends: where each message ends in `symbols`, int64 [messages], on the same device.
        index: table of each symbol, of the shape of `symbols`, in any of these dtypes.
        check: whether to wait and raise what could not be coded. Without it nothing waits, calls
            can be captured in a CUDA graph, and `raise_message_faults` tells later.

    Raises:
        ArgumentError: another dtype, ends that are none, a symbol without a code, an index that is
            no table.
        ShapeError: symbols and index of different shapes, ends that are not flat.
        DeviceError: a tensor is not on a CUDA device, or there are no kernels for it.
    """
    checked("encode_messages", "tables", tables, Tables)
    flat, flat_index = flat_on_device("encode_messages", symbols, index, tables)
    _check_ends("encode_messages", ends, flat)
    torch = sys.modules["torch"]
    room, workspace, _ = _ops.range64_device_bytes(tables._native, flat, len(ends))

    def empty(size: int, dtype: str) -> Any:
        return torch.empty(size, dtype=getattr(torch, dtype), device=flat.device)

    messages = DeviceMessages(
        ends.contiguous(),
        empty(room, "uint8"),
        empty(len(ends), "int64"),
        empty(3, "int64"),
        flat.numel(),
        dtype_name(symbols),
    )
    given = (image_on(tables, flat), flat, flat_index, empty(workspace, "uint8"))
    _ops.range64_run_cuda("encode", tables._native, given, messages.parts())
    if check:
        raise_message_faults(messages, tables, flat, flat_index)
    return messages


def decode_messages(
    messages: DeviceMessages, tables: Tables, index: Any = None, check: bool = True
) -> Any:
    """The inverse of `encode_messages`, flat, on the device of the messages.

    Args:
        messages: of `encode_messages`, or of `upload_messages`.
        tables: the model they were written with.
        index: as it was when encoding.
        check: as in `encode_messages`. Messages carry no check of their own: damage gives other
            symbols, and an error only where no encoder could have written it.

    Raises:
        CorruptDataError: bytes that no encoder writes for so many symbols, by message.
        ArgumentError, ShapeError, DeviceError: as `encode_messages`.
    """
    checked("decode_messages", "tables", tables, Tables)
    checked("decode_messages", "messages", messages, DeviceMessages)
    flat, flat_index = room_on_device("decode_messages", messages, tables, index)
    _check_ends("decode_messages", messages.ends, flat)
    workspace = _ops.range64_device_bytes(tables._native, flat, len(messages.ends))[2]
    scratch = flat.new_empty(workspace, dtype=sys.modules["torch"].uint8)
    given = (image_on(tables, flat), flat, flat_index, scratch)
    _ops.range64_run_cuda("decode", tables._native, given, messages.parts())
    if check:
        raise_message_faults(messages, tables, None, flat_index)
    return flat


def upload_messages(messages: list[bytes], lengths: Any, dtype: str, device: Any) -> DeviceMessages:
    """Messages of `encode_batch` for `decode_messages`.

    Args:
        messages: in host memory.
        lengths: number of symbols of each.
        dtype: of the symbols: uint8, int16, int32 or int64.
        device: of torch.

    Raises:
        ArgumentError: no bytes, a length below 0, another dtype.
        ShapeError: not as many lengths as messages.
    """
    import torch

    messages = [
        raw_bytes("upload_messages", f"messages[{k}]", message)
        for k, message in enumerate(several("upload_messages", "messages", messages))
    ]
    lengths = integers("upload_messages", "lengths", lengths).reshape(-1)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ArgumentError(
            f"upload_messages: dtype is {shown(dtype)}, expected {', '.join(DTYPES)}"
        )
    if lengths.size and int(lengths.min()) < 0:
        raise ArgumentError(f"upload_messages: lengths holds {int(lengths.min())}, expected >= 0")
    ends, byte_ends = (
        np.cumsum(sizes, dtype=np.int64) for sizes in (lengths, [len(each) for each in messages])
    )
    if len(ends) != len(byte_ends):
        raise ShapeError(f"upload_messages: {len(byte_ends)} messages, but {len(ends)} lengths")
    data = np.frombuffer(b"".join(messages), np.uint8).copy()
    arrays = (ends, data, byte_ends, np.zeros(3, np.int64))
    tensors = (torch.from_numpy(array).to(device) for array in arrays)
    return DeviceMessages(*tensors, int(ends[-1]) if len(ends) else 0, dtype)


def raise_message_faults(
    messages: DeviceMessages, tables: Tables, symbols: Any, index: Any
) -> None:
    """Raises what the last call could not do; waits for the device.

    Args:
        messages: of the call.
        tables: of the call.
        symbols: flat, what was encoded; None after decoding.
        index: flat, of the call, or None.
    """
    damage, stray, unfit = messages.faults.tolist()
    if damage >= 0 and damage & 255 == 1:
        raise ArgumentError(f"message {damage >> 8} {_FAULTS[1]}")
    raise_strays(stray, unfit, tables, symbols, index)
    if damage >= 0:
        raise CorruptDataError(f"message {damage >> 8} {_FAULTS[damage & 255]}")
    if unfit >= 0:
        raise CorruptDataError(f"symbol {unfit} does not fit {messages.dtype}")


def _check_ends(op: str, ends: Any, symbols: Any) -> None:
    check_on_device(op, "ends", ends)
    if dtype_name(ends) != "int64":
        raise ArgumentError(f"{op}: ends is {dtype_name(ends)}, expected int64")
    if ends.dim() != 1:
        raise ShapeError(f"{op} takes ends [messages]; got {list(ends.shape)}")
    if ends.device != symbols.device:
        raise DeviceError(f"{op}: ends lies on {ends.device}, symbols on {symbols.device}")
    if len(ends) == 0 and symbols.numel() > 0:
        raise ArgumentError(f"{op}: there are symbols, but no messages")

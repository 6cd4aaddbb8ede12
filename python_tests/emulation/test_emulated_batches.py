# SPDX-License-Identifier: Apache-2.0
"""Many messages on a device: the Python of it, with the emulator in place of the kernels."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.calls import EmulatedRange
from emulation.range_cases import GAUSS, drawn, ragged

import otcuda
from otcuda import _ops
from otcuda.coding import (
    DeviceMessages,
    Tables,
    decode_messages,
    device_batch,
    encode_batch,
    encode_messages,
    upload_messages,
)

torch = pytest.importorskip("torch")


@pytest.fixture
def on_device(monkeypatch, emulator):
    """Tensors in host memory count as lying on a device."""

    def run(verb, native_tables, given, message):
        image, symbols, index, _ = given
        ends, data, byte_ends, faults = (part.numpy() for part in message)
        coder = EmulatedRange.of(emulator, native_tables, image.numpy())
        index = None if index is None else index.numpy()
        if verb == "encode":
            written, byte_ends[...], told = coder.encode(symbols.numpy(), index, ends)
            data[: len(written)] = written
        else:
            given = (data, byte_ends, len(symbols), index, ends, symbols.numpy().dtype)
            symbols.numpy()[...], told = coder.decode(*given)
        faults[...] = told

    def sizes(native_tables, symbols, messages):
        return 13 * len(symbols) + 16 * messages, 0, 0

    monkeypatch.setattr(_ops, "rans32_on_cuda", lambda array: isinstance(array, torch.Tensor))
    monkeypatch.setattr(_ops, "range64_run_cuda", run)
    monkeypatch.setattr(_ops, "range64_device_bytes", sizes)


def tensors(length, dtype=torch.int32):
    symbols, index = drawn(9, length, GAUSS)
    return torch.from_numpy(symbols).to(dtype), torch.from_numpy(index).to(torch.int64)


def split(tensor, ends):
    return np.split(tensor.numpy(), ends[:-1])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_messages_are_those_of_the_cpu(dtype, on_device):
    (symbols, index), ends = tensors(500, dtype), ragged(500, 40)
    want = encode_batch(split(symbols, ends), GAUSS, split(index, ends))
    messages = encode_messages(symbols, GAUSS, torch.from_numpy(ends), index)
    assert messages.host() == want
    back = decode_messages(messages, GAUSS, index)
    assert back.dtype == dtype
    assert torch.equal(back, symbols)
    lengths = np.diff(ends, prepend=0)
    sent = upload_messages(want, lengths, str(dtype).removeprefix("torch."), "cpu")
    assert torch.equal(decode_messages(sent, GAUSS, index), symbols)


def test_no_message(on_device):
    four, none = Tables.equiprobable(4), torch.zeros(0, dtype=torch.int64)
    messages = encode_messages(none, four, none)
    assert messages.host() == []
    assert len(decode_messages(messages, four)) == 0
    assert decode_messages(upload_messages([], [], "uint8", "cpu"), four).dtype == torch.uint8


def test_faults_are_raised(on_device):
    symbols, index = tensors(100)
    ends = torch.tensor([60, 100])
    with pytest.raises(otcuda.ArgumentError, match="message 1 has ends that do not follow"):
        encode_messages(symbols, GAUSS, torch.tensor([60, 50]), index)
    stray = index.clone()
    stray[70] = 64
    with pytest.raises(otcuda.ArgumentError, match=r"index\[70\] is 64, expected 0 \.\. 63"):
        encode_messages(symbols, GAUSS, ends, stray)
    four = Tables.equiprobable(4)
    with pytest.raises(otcuda.ArgumentError, match=r"symbols\[2\] is 4, expected 0 \.\. 3"):
        encode_messages(torch.tensor([0, 3, 4, 1]), four, torch.tensor([4]))
    messages = encode_messages(symbols, GAUSS, ends, index)
    messages.byte_ends[0] += 9
    with pytest.raises(otcuda.CorruptDataError, match="message 0 is damaged, or symbols were left"):
        decode_messages(messages, GAUSS, index)
    messages.byte_ends[1] = 10_000
    with pytest.raises(otcuda.CorruptDataError, match="message 1 has byte_ends that do not"):
        decode_messages(messages, GAUSS, index)
    one = upload_messages([b"\xff" * 9], [20], "int32", "cpu")
    with pytest.raises(otcuda.CorruptDataError, match="message 0 holds a step that no encoder"):
        decode_messages(one, Tables.from_weights([1, 1, 1], 2, escape=False))
    broad = Tables.gaussian([32.0], -128, 127)
    sent = upload_messages(encode_batch([[-3, 9]], broad), [2], "uint8", "cpu")
    with pytest.raises(otcuda.CorruptDataError, match="symbol 0 does not fit uint8"):
        decode_messages(sent, broad)


def test_unchecked_calls_tell_later(on_device):
    four, symbols = Tables.equiprobable(4), torch.tensor([0, 3, 4, 1])
    messages = encode_messages(symbols, four, torch.tensor([4]), check=False)
    with pytest.raises(otcuda.ArgumentError, match=r"symbols\[2\] is 4"):
        device_batch.raise_message_faults(messages, four, symbols, None)


def test_arguments_are_checked(on_device):
    symbols, index = tensors(64)
    ends = torch.tensor([64])
    with pytest.raises(otcuda.ArgumentError, match="ends is int32, expected int64"):
        encode_messages(symbols, GAUSS, ends.int(), index)
    with pytest.raises(otcuda.ShapeError, match=r"takes ends \[messages\]"):
        encode_messages(symbols, GAUSS, ends[None], index)
    with pytest.raises(otcuda.ArgumentError, match="symbols, but no messages"):
        encode_messages(symbols, GAUSS, ends[:0], index)
    with pytest.raises(otcuda.ArgumentError, match="index is missing"):
        encode_messages(symbols, GAUSS, ends)
    with pytest.raises(otcuda.ShapeError, match="3 messages, but 1 lengths"):
        upload_messages([b"a", b"b", b"c"], [5], "int32", "cpu")
    messages = encode_messages(symbols, GAUSS, ends, index)
    with pytest.raises(otcuda.ShapeError, match="64 symbols, but index has"):
        decode_messages(messages, GAUSS, index[:-1])


def test_host_memory_is_named():
    zeros = np.zeros(3, np.int64)
    with pytest.raises(otcuda.DeviceError, match="symbols is no tensor on a CUDA device"):
        encode_messages(zeros, GAUSS, zeros)
    with pytest.raises(otcuda.DeviceError, match="the message is no tensor"):
        decode_messages(DeviceMessages(zeros, zeros, zeros, zeros, 3, "int32"), GAUSS)

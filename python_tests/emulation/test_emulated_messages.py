# SPDX-License-Identifier: Apache-2.0
"""otcuda.coding for tensors of a device: its Python, with the emulator in place of the kernels."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.calls import EmulatedRans
from emulation.rans_cases import GAUSS, drawn

import otcuda
from otcuda import _ops
from otcuda.coding import decode, decode_blocks, device, encode, encode_blocks, encode_long

torch = pytest.importorskip("torch")


@pytest.fixture
def on_device(monkeypatch, emulator):
    """Tensors in host memory count as lying on a device; names of the calls made."""
    calls = []

    def run(verb, native_tables, given, block, message):
        image, symbols, index, _ = given
        data, directory, size, faults = (part.numpy() for part in message)
        rans = EmulatedRans.of(emulator, native_tables, image.numpy())
        index = None if index is None else index.numpy()
        if verb == "encode":
            blocks, rows, told = rans.encode(symbols.numpy(), index, block)
            data[: len(blocks)], directory[...], size[0] = blocks, rows, len(blocks)
        else:
            given = (data[: size[0]], directory, len(symbols), index, block)
            found, told = rans.decode(*given, symbols.numpy().dtype)
            symbols.numpy()[...] = found
        faults[...] = told
        calls.append(verb)

    def sizes(native_tables, n, block):
        return 9 * n + 132 * -(-n // block), 0, 0

    monkeypatch.setattr(_ops, "rans32_on_cuda", lambda array: isinstance(array, torch.Tensor))
    monkeypatch.setattr(_ops, "rans32_run_cuda", run)
    monkeypatch.setattr(_ops, "rans32_device_bytes", sizes)
    return calls


def tensors(length, dtype=torch.int32):
    symbols, index = drawn(9, length, GAUSS)
    return torch.from_numpy(symbols).to(dtype), torch.from_numpy(index).to(torch.int64)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_containers_are_those_of_the_cpu(dtype, on_device):
    symbols, index = (t.reshape(20, 30) for t in tensors(600, dtype))
    want = encode_long(symbols.numpy(), GAUSS, index.numpy(), 128)
    assert encode_long(symbols, GAUSS, index, 128) == want
    assert encode(symbols, GAUSS, index, lanes=32) == encode(
        symbols.numpy(), GAUSS, index.numpy(), lanes=32
    )
    back = decode(want, GAUSS, index)
    assert on_device == ["encode", "encode", "decode"]
    assert back.dtype == dtype
    assert torch.equal(back, symbols)


def test_what_the_kernels_do_not_take_goes_through_host_memory(on_device):
    symbols, index = tensors(300, torch.int8)
    blob = encode_long(symbols, GAUSS, index, 64)
    assert blob == encode_long(symbols.numpy(), GAUSS, index.numpy(), 64)
    assert torch.equal(decode(blob, GAUSS, index), symbols)
    assert on_device == []


def test_blocks_stay_on_the_device(on_device):
    symbols, index = (t.reshape(10, 50) for t in tensors(500))
    message = encode_blocks(symbols, GAUSS, index, 96)
    directory, blocks = message.host()
    assert encode_long(symbols.numpy(), GAUSS, index.numpy(), 96)[32 + directory.nbytes :] == blocks
    assert torch.equal(decode_blocks(message, GAUSS, index), symbols)
    assert list(GAUSS._images) == [symbols.device]


def test_faults_are_raised_as_on_the_cpu(on_device):
    symbols, index = tensors(300)
    blob = bytearray(encode_long(symbols, GAUSS, index, 96))
    blob[-40] ^= 1
    for given in (index, index.numpy()):
        with pytest.raises(otcuda.CorruptDataError, match="block 3 of the message"):
            decode(blob, GAUSS, given)
    blob[-40] ^= 1
    moved = index.clone()
    moved[5] = (moved[5] + 7) % 64
    with pytest.raises(otcuda.IndexMismatchError):
        decode(blob, GAUSS, moved)
    with pytest.raises(otcuda.ShapeError, match="holds 300 symbols"):
        decode(blob, GAUSS, index[:-1])
    moved[5] = 64
    for given in ((symbols, moved), (symbols.numpy(), moved.numpy())):
        with pytest.raises(otcuda.ArgumentError, match=r"index\[5\] is 64, expected 0 \.\. 63"):
            encode_long(given[0], GAUSS, given[1], 96)
    four = otcuda.coding.Tables.equiprobable(4)
    strays = torch.tensor([0, 3, 4, 1])
    for given in (strays, strays.numpy()):
        with pytest.raises(otcuda.ArgumentError, match=r"symbols\[2\] is 4, expected 0 \.\. 3"):
            encode_long(given, four, None, 32)


def test_unchecked_calls_tell_later(on_device):
    four = otcuda.coding.Tables.equiprobable(4)
    message = encode_blocks(torch.tensor([0, 3, 4, 1]), four, check=False)
    with pytest.raises(otcuda.ArgumentError, match=r"symbols\[2\] is 4"):
        device.raise_faults(message, four, torch.tensor([0, 3, 4, 1]), None)
    message = encode_blocks(torch.tensor([0, 3, 2, 1]), four)
    message.data[3] = 0
    message.data[2] = 0
    decode_blocks(message, four, check=False)
    with pytest.raises(otcuda.CorruptDataError, match="begins with a state"):
        device.raise_faults(message, four, None, None)


def test_arguments_are_checked(on_device):
    symbols, index = tensors(64)
    with pytest.raises(otcuda.ArgumentError, match="symbols is float32, expected uint8"):
        encode_blocks(symbols.float(), GAUSS, index)
    with pytest.raises(otcuda.ArgumentError, match="index is missing"):
        encode_blocks(symbols, GAUSS)
    with pytest.raises(otcuda.ShapeError, match="symbols and index of one shape"):
        encode_blocks(symbols, GAUSS, index[:-1])


def test_host_memory_is_named():
    with pytest.raises(otcuda.DeviceError, match="symbols is no tensor on a CUDA device"):
        encode_blocks(np.zeros(3, np.int32), GAUSS)

# SPDX-License-Identifier: Apache-2.0
"""The `.otc` file: a few bytes of head, then the payload to the end of the file. docs/format.md.

Needs neither torch nor a model: `info` reads any file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from otcuda.errors import ArgumentError, BudgetError, CorruptDataError, LimitError

MAGIC = 0xC0  # high bits of the first byte
VERSION = 1  # low four bits
CUSTOM_MODEL = 7  # a model that is none of the numbered releases: four bytes of its digest follow
MODES = ("coded", "fixed")
LARGEST_EDGE = 1 << 24
MAX_PIXELS = 89_478_485  # Pillow's own limit before it warns of a decompression bomb
VARINT_BYTES = 4


@dataclass(frozen=True)
class Header:
    """What stands before the payload.

    Attributes:
        width: of the picture in pixels.
        height: of the picture in pixels.
        mode: "coded" or "fixed".
        step: the quantiser step is 2^(3 + step/32); for "fixed" the number of the bit table.
        grey: the picture has no colour.
        model: number of the model's release, or CUSTOM_MODEL.
        digest: first four bytes of the digest of a custom model, else empty.
    """

    width: int
    height: int
    mode: str
    step: int
    grey: bool
    model: int
    digest: bytes = b""


@dataclass(frozen=True)
class FileInfo:
    """What a file says about itself without being decoded.

    Attributes:
        width: of the picture in pixels.
        height: of the picture in pixels.
        mode: "coded" or "fixed".
        step: index of the quantiser step.
        grey: the picture has no colour.
        model: number of the model's release, or the digest of a custom model in hexadecimal.
        header_bytes: bytes before the payload.
        payload_bytes: bytes of the payload.
        bpp: bits of the file over pixels of the picture.
        version: of the format.
    """

    width: int
    height: int
    mode: str
    step: int
    grey: bool
    model: str
    header_bytes: int
    payload_bytes: int
    bpp: float
    version: int = VERSION


def check_size(width: int, height: int, max_pixels: int | None = MAX_PIXELS) -> None:
    """Refuse sizes that the format or the limit does not allow.

    Raises:
        ArgumentError: an edge is not in [1, 2^24].
        LimitError: more than `max_pixels` pixels.
    """
    if not (1 <= width <= LARGEST_EDGE and 1 <= height <= LARGEST_EDGE):
        raise ArgumentError(
            f"the picture is {width} x {height} pixels; each edge must lie in [1, {LARGEST_EDGE}]"
        )
    if max_pixels is not None and width * height > max_pixels:
        raise LimitError(
            f"the picture has {width} x {height} = {width * height} pixels, the limit is "
            f"{max_pixels}; pass max_pixels= to raise it"
        )


def too_little(budget: int, shape: tuple[int, ...], least: int, mode: str = "") -> BudgetError:
    """The error of a budget that is smaller than the least file of a picture (height, width)."""
    bpp = math.floor(8e4 * least / (shape[0] * shape[1]) + 1) / 1e4  # enough when passed as bpp
    return BudgetError(
        f"{budget} bytes cannot hold this picture of {shape[1]} x {shape[0]} pixels{mode}; the "
        f"least is {least} bytes ({bpp:g} bit a pixel)"
    )


def file_bytes(data: Any) -> bytes:
    """The bytes of a file that a caller passes as bytes, bytearray, memoryview or uint8 array.

    Raises:
        ArgumentError: it is something else, a name for instance.
    """
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise ArgumentError(
            f"data is {type(data).__name__}; it must be the bytes of an .otc file"
        ) from None


def write_file(header: Header, payload: bytes) -> bytes:
    """Head and payload as one file; a coded payload drops the zeros at its end."""
    check_size(header.width, header.height, None)
    if not 0 <= header.step <= 255:
        raise ArgumentError(f"the step index is {header.step}; it must lie in [0, 255]")
    flags = header.model | MODES.index(header.mode) << 3 | header.grey << 4
    head = bytes([MAGIC | VERSION, flags, header.step])
    head += header.digest if header.model == CUSTOM_MODEL else b""
    head += _varint(header.width - 1) + _varint(header.height - 1)
    return head + (payload.rstrip(b"\0") if header.mode == "coded" else payload)


def read_header(data: bytes) -> tuple[Header, bytes]:
    """Head and payload of a file.

    Raises:
        CorruptDataError: not an `.otc` file, of an unknown version, or cut off in its head.
    """
    if len(data) < 5 or data[0] & 0xF0 != MAGIC:
        raise CorruptDataError("this is not an .otc file: the first byte is not 0xC1")
    if data[0] != MAGIC | VERSION:
        raise CorruptDataError(
            f"this .otc file has format version {data[0] & 15}; version {VERSION} is known"
        )
    flags, step = data[1], data[2]
    if flags & 0xE0:
        raise CorruptDataError(f"the flags byte is {flags:#04x}; its three high bits must be zero")
    model, at = flags & 7, 3
    digest = b""
    if model == CUSTOM_MODEL:
        digest, at = data[3:7], 7
    width, at = _read_varint(data, at, "width")
    height, at = _read_varint(data, at, "height")
    mode = MODES[flags >> 3 & 1]
    header = Header(width + 1, height + 1, mode, step, bool(flags >> 4 & 1), model, digest)
    return header, data[at:]


def info(data: bytes) -> FileInfo:
    """What a file says about itself; neither torch nor a model is needed.

    Raises:
        CorruptDataError: as `read_header`.
        ArgumentError: `data` is not bytes.
    """
    data = file_bytes(data)
    header, payload = read_header(data)
    return FileInfo(
        width=header.width,
        height=header.height,
        mode=header.mode,
        step=header.step,
        grey=header.grey,
        model=header.digest.hex() if header.digest else str(header.model),
        header_bytes=len(data) - len(payload),
        payload_bytes=len(payload),
        bpp=8 * len(data) / (header.width * header.height),
    )


def _varint(value: int) -> bytes:
    """Seven bits a byte, low ones first; the high bit says that more follow."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int, name: str) -> tuple[int, int]:
    value = 0
    for k in range(VARINT_BYTES):
        if at + k >= len(data):
            raise CorruptDataError(f"the file ends inside the {name}")
        byte = data[at + k]
        value |= (byte & 127) << 7 * k
        if byte < 128:
            if byte == 0 and k > 0:
                raise CorruptDataError(f"the {name} is written with more bytes than it needs")
            if value >= LARGEST_EDGE:
                break
            return value, at + k + 1
    raise CorruptDataError(f"the {name} is over {LARGEST_EDGE}")

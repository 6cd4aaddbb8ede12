# SPDX-License-Identifier: Apache-2.0
"""A codec of a few lines behind the names of the real one: the picture as a mosaic of k x k tiles.

It keeps a byte budget, needs neither weights nor torch, and writes a real `.otc` head, so that
everything around the codec can be tested in milliseconds. `OTCUDA_TEST_SECONDS` makes it slow.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from otcuda import codec
from otcuda.codec import bitstream
from otcuda.errors import BudgetError, ModelMismatchError

DIGEST = "0123abcd" * 8
NAMES = ("compress", "decompress", "load_model")


@dataclass(frozen=True)
class Model:
    id: int = bitstream.CUSTOM_MODEL
    digest: str = DIGEST


def load_model(path: Any = None) -> Model:
    if path is not None and not os.path.exists(path):  # noqa: PTH110
        raise FileNotFoundError(f"{path}: there are no weights here")
    return Model() if path is None else Model(digest="ffff0000" * 8)


def compress(image, *, bytes=None, bpp=None, quality=None, mode="coded", effort=1, **more) -> bytes:
    assert mode in bitstream.MODES
    assert effort in (0, 1)
    model = more.pop("model", None) or load_model()
    time.sleep(float(os.environ.get("OTCUDA_TEST_SECONDS", "0")))
    if more.get("callback"):
        more["callback"]("mosaic", 1.0)
    pixels = np.asarray(image)
    area = pixels.shape[0] * pixels.shape[1]
    if quality is not None:
        bytes = 20 + int(100 * quality)
    elif bytes is None:
        bytes = int((bpp or 0.03) * area / 8 + 1e-9)
    grey = pixels.ndim == 2
    digest = bytearray.fromhex(model.digest[:8])

    def file(k: int, payload: Any) -> Any:
        height, width = pixels.shape[:2]
        head = bitstream.Header(width, height, mode, k, grey, model.id, digest)
        return bitstream.write_file(head, payload)

    least = len(file(1, b"\1\1\1"))
    k = min(int(max(0, (bytes - least + 3) // 3) ** 0.5), 255)
    if k < 1:
        raise BudgetError(f"{bytes} bytes cannot hold this picture; the least is {least} bytes")
    tiles = Image.fromarray(pixels).convert("RGB").resize((k, k), Image.Resampling.BOX)
    return file(k, tiles.tobytes())


def decompress(data, *, realism=0.0, model=None, max_pixels=bitstream.MAX_PIXELS, callback=None):
    head, payload = bitstream.read_header(data)
    bitstream.check_size(head.width, head.height, max_pixels)
    model = model or load_model()
    if head.digest.hex() != model.digest[:8]:
        raise ModelMismatchError(f"written with model {head.digest.hex()}, pass --model")
    k = max(head.step, 1)
    if callback is not None:
        callback("mosaic", 0.5)
    tiles = np.frombuffer(payload.ljust(3 * k * k, b"\0")[: 3 * k * k], np.uint8)
    picture = Image.fromarray(tiles.reshape(k, k, 3)).resize((head.width, head.height), 0)
    return np.asarray(picture) ^ np.uint8(255 * (realism > 0.5))


def install() -> None:
    for name in NAMES:
        setattr(codec, name, globals()[name])

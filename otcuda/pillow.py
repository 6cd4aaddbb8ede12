# SPDX-License-Identifier: Apache-2.0
"""`import otcuda.pillow` makes `.otc` a format of Pillow: `Image.open`, `image.save("x.otc")`.

Opening reads the head alone, so that `size` and Pillow's check for decompression bombs cost
nothing; the picture is decoded when its pixels are first used. Pillow empties a file that is
there before it asks for the new one: where that fails (a budget too small), the old one is gone.

>>> import otcuda.pillow
>>> from PIL import Image
>>> Image.registered_extensions()[".otc"]
'OTC'
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

from otcuda import codec
from otcuda.errors import ArgumentError, CorruptDataError, Error, LimitError

FORMAT = "OTC"
LARGEST_FILE = 1 << 30
OPTIONS = ("bytes", "bpp", "quality", "mode", "effort", "model", "callback")  # of save


class OtcImageFile(ImageFile.ImageFile):
    """An `.otc` file as Pillow sees it.

    Attributes:
        realism: of the decoded picture; set it before the pixels are used.
        otc: what the file says about itself, `otcuda.codec.FileInfo`.
    """

    format = FORMAT
    format_description = "otcuda learned picture codec"
    realism: float = 0.0

    def _open(self) -> None:
        data = self.fp.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise SyntaxError("over 1 GiB, which no .otc file is")
        try:
            self.otc = codec.info(data)
        except CorruptDataError as error:
            raise SyntaxError(str(error)) from None  # Pillow's word for "not mine"
        self._data: bytes | None = data
        self._size = (self.otc.width, self.otc.height)
        self._mode = "L" if self.otc.grey else "RGB"

    def load(self) -> Any:
        """Decode, once.

        Raises:
            OSError: the file is damaged, or was written with another model.
        """
        if self._data is not None:
            data, limit = self._data, Image.MAX_IMAGE_PIXELS
            try:
                pixels = codec.decompress(
                    data, realism=self.realism, max_pixels=None if limit is None else 2 * limit
                )
            except LimitError:
                raise
            except Error as error:
                raise OSError(str(error)) from error
            self.im = Image.fromarray(pixels).convert(self.mode).im
            self._data = None
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)


def register() -> None:
    """Tell Pillow; importing this module does it, linters may like a call better."""
    Image.register_open(FORMAT, OtcImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".otc")
    Image.register_mime(FORMAT, "image/x-otc")


def _accept(prefix: bytes) -> bool:
    return prefix[:1] == b"\xc1"


def _save(image: Image.Image, file: BinaryIO, name: str | bytes) -> None:
    if image.mode not in ("L", "RGB"):
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}; convert to RGB or L")
    given = image.encoderinfo
    options = {key: given[key] for key in OPTIONS if given.get(key) is not None}
    unknown = given.keys() - {*OPTIONS, "exif", "icc_profile", "dpi"}  # of them Pillow adds some
    if unknown:
        raise ArgumentError(f"save as {FORMAT} takes {', '.join(OPTIONS)}; got {min(unknown)}")
    file.write(codec.compress(np.asarray(image), **options))


register()

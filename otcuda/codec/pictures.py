# SPDX-License-Identifier: Apache-2.0
"""Pictures through the networks, natively: the same pixels at every level and number of threads.

What is computed, to the last rounding: csrc/common/net.h. Large pictures go tile by tile; a tile
carries a halo as wide as anything that a rounding of its pixels depends on, so that tiles leave no
trace, not even in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from otcuda import _nets
from otcuda.codec.model import Model
from otcuda.codec.noise import (
    COARSE_NOISE,
    FEATURE_STRIDE,
    FINE_NOISE,
    noise_seed,
    noise_window,
)
from otcuda.errors import Interrupted

STRIDE = 16  # pixels a latent position
ALIGN = 64  # pixels to which pictures are padded
WHOLE = 1 << 25  # pixels of a picture that still goes through in one piece, half with the head
TILE = 4096  # pixels along the edge of a tile of a larger one

Callback = Callable[[float], bool | None]


class Tile(NamedTuple):
    """A part of the picture, and the part with its halo: rows and columns of pixels."""

    rows: slice
    columns: slice
    outer_rows: slice
    outer_columns: slice


class Networks:
    """Analysis and synthesis of one model on whole pictures."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def analyse(self, image: np.ndarray, callback: Callback | None = None) -> np.ndarray:
        """Latents float32 [M, h, w] of a picture uint8 [H, W, 3], padded to whole tiles of 64.

        Args:
            image: the picture.
            callback: takes the progress in [0, 1] now and then; False stops with `Interrupted`.
        """
        net = self._model.analysis
        tiles = list(tiled(image.shape[:2], self._halo("analysis_blocks", 0), WHOLE))
        if len(tiles) == 1:
            return _nets.net_analysis(net, image, callback)
        h, w = (-(-size // ALIGN) * 4 for size in image.shape[:2])
        latents = np.empty((net.channels, h, w), np.float32)
        for k, tile in enumerate(tiles):
            part = image[tile.outer_rows, tile.outer_columns]
            outer = _nets.net_analysis(net, part, share_of(callback, k, len(tiles)))
            rows, columns = (latent_slice(s) for s in (tile.rows, tile.columns))
            top, left = tile.outer_rows.start // STRIDE, tile.outer_columns.start // STRIDE
            latents[:, rows, columns] = outer[
                :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
        return latents

    def synthesise(
        self,
        latents: np.ndarray,
        step: float,
        shape: tuple[int, int],
        grey: bool = False,
        *,
        realism: float = 0.0,
        payload: bytes = b"",
        callback: Callback | None = None,
    ) -> np.ndarray:
        """Picture uint8 [H, W, 3] of latents [M, h, w].

        Args:
            latents: orthonormal units.
            step: index of the quantiser step.
            shape: height and width of the picture.
            grey: leave the colour out.
            realism: share of the perceptual head in the output.
            payload: of the file: the seed of the head's noise, so that decoding is reproducible.
            callback: as in `analyse`.
        """
        head = self._model.perception if realism > 0 else None
        limit = WHOLE if head is None else WHOLE // 2
        tiles = list(tiled(shape, self._halo("synthesis_blocks", 1, head), limit))
        picture = np.empty((*shape, 3), np.uint8) if len(tiles) > 1 else None
        for k, tile in enumerate(tiles):
            rows, columns = latent_slice(tile.outer_rows), latent_slice(tile.outer_columns)
            perception = None
            if head is not None:
                noise = noise_of(noise_seed(payload), latents.shape[1:], rows, columns)
                perception = _nets.Perception(head, *noise, realism)
            planes = _nets.net_synthesis(
                self._model.synthesis,
                latents[:, rows, columns],
                3 + step / 32,
                perception,
                share_of(callback, k, len(tiles)),
            )
            corner = (
                tile.rows.start - tile.outer_rows.start,
                tile.columns.start - tile.outer_columns.start,
            )
            size = (tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start)
            cut = _nets.net_picture(planes, corner, size, grey)
            if picture is None:
                return cut
            picture[tile.rows, tile.columns] = cut
        return picture

    def _halo(self, blocks: str, at8: int, head: Any = None) -> int:
        """Pixels around a tile on which its bits depend, a multiple of 64.

        A tile of conv3 depends on the tiles next to it: 64 pixels a layer at 1/16, 32 at 1/8; each
        block has two layers, and each resolution one more. The strided layer sees 32 pixels, the
        head has a layer more than the base, and 16 pixels of its own; a layer of the picture
        filter, at half of the resolution, 8.

        Args:
            blocks: name of the numbers of residual blocks in the configuration.
            at8: which of the two is the number at 1/8.
            head: the perceptual head, if it takes part.
        """
        numbers = self._model.config[blocks]
        fine = 2 * numbers[at8] + 2
        if head is not None:
            fine = max(fine, head.layers) + 1
        reach = 64 * (2 * numbers[1 - at8] + 1) + 32 * fine
        if at8 and self._model.config.get("filter_width"):
            reach += 8 * (2 * self._model.config["filter_blocks"] + 2)
        return -(-reach // ALIGN) * ALIGN


def tiled(shape: tuple[int, int], halo: int, limit: int) -> Iterator[Tile]:
    """Tiles of a picture (height, width): itself, if it has at most `limit` pixels."""
    height, width = shape
    if height * width <= limit:
        yield Tile(*(slice(0, size) for size in (height, width, height, width)))
        return
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(height, top + TILE), min(width, left + TILE)
            yield Tile(
                slice(top, bottom),
                slice(left, right),
                slice(max(0, top - halo), min(height, bottom + halo)),
                slice(max(0, left - halo), min(width, right + halo)),
            )


def latent_slice(pixels: slice) -> slice:
    """Latent positions of a range of pixels that begins at a multiple of 64."""
    return slice(pixels.start // STRIDE, -(-pixels.stop // ALIGN) * (ALIGN // STRIDE))


def noise_of(
    seed: int, grid: tuple[int, int], rows: slice, columns: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Coarse and fine noise of a window of latent positions, out of that of the whole grid."""
    noise, begin = [], 0
    for n, pixels in ((COARSE_NOISE, STRIDE // FEATURE_STRIDE), (FINE_NOISE, STRIDE)):
        planes = (n, grid[0] * pixels, grid[1] * pixels)
        window = (slice(s.start * pixels, s.stop * pixels) for s in (rows, columns))
        noise.append(noise_window(seed, begin, planes, *window))
        begin += math.prod(planes)
    return noise[0], noise[1]


def share_of(callback: Callback | None, k: int, n: int) -> Any:
    """The callback for the k-th of n equal parts, which hears of its beginning."""
    if callback is None:
        return None
    if callback(k / n) is False:
        raise Interrupted("stopped by the callback")
    return lambda share: callback((k + share) / n)

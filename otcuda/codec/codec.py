# SPDX-License-Identifier: Apache-2.0
"""compress and decompress: pictures to `.otc` files and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda.codec import fixed
from otcuda.codec.bitstream import (
    CUSTOM_MODEL,
    MAX_PIXELS,
    MODES,
    Header,
    check_size,
    read_header,
    write_file,
)
from otcuda.codec.integer_context import Choice
from otcuda.codec.model import Model, load_model
from otcuda.codec.pictures import Networks
from otcuda.codec.quantiser import dequantised, latent_shape, step_size
from otcuda.errors import ArgumentError, BudgetError, ModelMismatchError

EFFORTS = (0, 1, 2)
ENGINES = ("native", "torch")
COARSEST = 255  # the largest index of a quantiser step
DEFAULT_BPP = 0.03
FINER_STEPS = 3  # how many finer steps conditional heights may try to fit into a budget
LARGEST_FILL = 0.12  # the largest multiplier c in lambda = c D^2 they do it with
FILL_HALVINGS = 6

Callback = Callable[[str, float], None]


@dataclass
class _Task:
    """A picture on its way into a file."""

    image: np.ndarray
    grey: bool
    model: Model
    networks: Any
    latents: np.ndarray

    @property
    def off(self) -> np.ndarray | None:
        return self.model.grey_off if self.grey else None

    def file(self, step: int, symbols: np.ndarray) -> bytes:
        """The file that these symbols make."""
        return write_file(
            _header(self.image, "coded", step, self.grey, self.model),
            self.model.context.encode(symbols, step, self.off),
        )

    def quantised(self, step: int, multiplier: float | None = None) -> Choice:
        """Symbols, values and bits of the latents at a step."""
        u = self.latents / step_size(step)
        return self.model.context.quantise(u, step, multiplier, self.off)

    def error(self, step: int, values16: np.ndarray) -> float:
        """Mean squared error of the decoded picture, 8 bit."""
        latents = dequantised(values16, step)
        decoded = self.networks.synthesise(latents, step, self.image.shape[:2], self.grey)
        return float(np.square(decoded.astype(np.float32) - self.image).mean())


def compress(
    image: Any,
    *,
    bytes: int | None = None,
    bpp: float | None = None,
    quality: float | None = None,
    mode: str = "coded",
    effort: int = 1,
    model: Model | None = None,
    engine: str = "native",
    callback: Callback | None = None,
) -> bytes:
    """Compress a picture.

    Args:
        image: uint8 [H, W, 3] or [H, W], or a Pillow image (transparency is dropped).
        bytes: the file has at most so many bytes.
        bpp: the same as bits a pixel; 0.03 where nothing is said.
        quality: a fixed quality in [0, 100] instead of a budget: the quantiser step falls from
            2^10 to 2^7.
        mode: "coded" (context model and range coder) or "fixed" (balanced codebooks, the size
            depends on the size of the picture alone).
        effort: 0 rounds; 1 tries finer steps with conditional heights; 2 also refines the latents
            through the decoder's gradient (seconds a picture, needs torch).
        model: weights; None takes those of the package.
        engine: what runs the networks, "native" or "torch".
        callback: takes (what is being done, share done) now and then; may raise to stop.

    Returns:
        The file, never over the budget.

    Raises:
        ArgumentError: an argument is not allowed, or two budgets are given.
        BudgetError: the budget cannot be met; says what can.
    """
    array, grey = _checked_image(image)
    if mode not in MODES:
        raise ArgumentError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
    if effort not in EFFORTS:
        raise ArgumentError(f"effort is {effort!r}; it must be 0, 1 or 2")
    budget, step = _checked_budget(array, bytes, bpp, quality)
    model = model or load_model()
    networks = _networks(engine, model)
    say = callback or (lambda *_: None)
    say("analysis", 0.0)
    task = _Task(array, grey, model, networks, networks.analyse(array))
    if mode == "fixed":
        return _compress_fixed(task, budget, say)
    if step is not None:
        return task.file(step, task.quantised(step).symbols)
    return _compress_coded(task, budget, effort, say)


def decompress(
    data: bytes,
    *,
    realism: float = 0.0,
    model: Model | None = None,
    engine: str = "native",
    max_pixels: int | None = MAX_PIXELS,
) -> np.ndarray:
    """Decode a file.

    With the native engine a file has the same pixels at every instruction set level and number of
    threads; with torch they may differ in the last bit.

    Args:
        data: a whole `.otc` file.
        realism: 0 is the picture of least error, 1 the perceptual head's, between them a blend.
        model: weights; None takes those of the package.
        engine: what runs the networks, "native" or "torch".
        max_pixels: larger pictures are refused before anything is allocated; None is no limit.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CorruptDataError: not an `.otc` file, or a damaged one.
        ModelMismatchError: written with other weights.
        LimitError: over the limit.
        ArgumentError: realism is not in [0, 1], or there is no such engine.
    """
    if not 0 <= realism <= 1:
        raise ArgumentError(f"realism is {realism}; it must lie in [0, 1]")
    data = memoryview(data).tobytes()
    header, payload = read_header(data)
    check_size(header.width, header.height, max_pixels)
    model = model or load_model()
    _check_model(header, model)
    networks = _networks(engine, model)
    shape = (header.height, header.width)
    if header.mode == "fixed":
        latents, step = fixed.decode(model.part("fixed."), payload, header.step, shape)
    else:
        off = model.grey_off if header.grey else None
        _, values16 = model.context.decode(payload, header.step, latent_shape(shape), off)
        latents, step = dequantised(values16, header.step), header.step
    return networks.synthesise(latents, step, shape, header.grey, realism=realism, payload=payload)


def _networks(engine: str, model: Model) -> Any:
    if engine not in ENGINES:
        raise ArgumentError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
    if engine == "native":
        return Networks(model)
    from otcuda.codec.pictures_torch import TorchNetworks

    return TorchNetworks(model)


def _compress_coded(task: _Task, budget: int, effort: int, say: Callback) -> bytes:
    step, blob = _finest_step(task, budget, say)
    if effort == 0:
        return blob
    best = (task.error(step, task.quantised(step).values16), blob)
    room = 8 * (budget - _head_bytes(task))
    for finer in range(1, FINER_STEPS + 1):
        say("filling the budget", finer / (FINER_STEPS + 1))
        if step - finer >= 0:
            best = min(best, *_filled(task, step - finer, room, budget), key=lambda pair: pair[0])
    if effort == 2:
        from otcuda.codec.refine import refine

        best = min(best, refine(task, step, budget, say), key=lambda pair: pair[0])
    return best[1]


def _filled(task: _Task, step: int, room: float, budget: int) -> list[tuple[float, bytes]]:
    """A finer step with the least multiplier that makes it fit: (error, file), or nothing."""
    low, high, fitting = 0.0, LARGEST_FILL, None
    for _ in range(FILL_HALVINGS):
        multiplier = high if fitting is None else (low + high) / 2
        quantised = task.quantised(step, multiplier)
        if quantised.bits <= room:
            high, fitting = multiplier, quantised
        elif fitting is None:
            return []
        else:
            low = multiplier
    blob = task.file(step, fitting.symbols)
    return [(task.error(step, fitting.values16), blob)] if len(blob) <= budget else []


def _finest_step(task: _Task, budget: int, say: Callback) -> tuple[int, bytes]:
    """The smallest quantiser step whose file fits, by bisection on the model's bits."""
    room = 8 * (budget - _head_bytes(task))
    low, high = 0, COARSEST  # bits fall with the step, up to noise
    while low < high:
        say("rate", 1 - (high - low) / COARSEST)
        middle = (low + high) // 2
        if task.quantised(middle).bits <= room:
            high = middle
        else:
            low = middle + 1
    for step in range(low, COARSEST + 1):
        blob = task.file(step, task.quantised(step).symbols)
        if len(blob) <= budget:
            return step, blob
    raise BudgetError(
        f"{budget} bytes cannot hold this picture of {task.image.shape[1]} x "
        f"{task.image.shape[0]} pixels; the least is {len(blob)} bytes"
    )


def _head_bytes(task: _Task) -> int:
    return len(write_file(_header(task.image, "coded", 0, task.grey, task.model), b""))


def _compress_fixed(task: _Task, budget: int | None, say: Callback) -> bytes:
    say("codebooks", 0.5)
    part = task.model.part("fixed.")
    shape = task.image.shape[:2]
    head = len(write_file(_header(task.image, "fixed", 0, task.grey, task.model), b""))
    number = fixed.choose_table(part, shape, None if budget is None else budget - head)
    payload = fixed.encode(part, task.latents, number)
    return write_file(_header(task.image, "fixed", number, task.grey, task.model), payload)


def _checked_image(image: Any) -> tuple[np.ndarray, bool]:
    """uint8 [H, W, 3] and whether it is grey."""
    if hasattr(image, "convert"):
        image = image.convert("L" if image.mode in ("1", "L", "LA", "I;16") else "RGB")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ArgumentError(
            f"image is {array.dtype} {list(array.shape)}; it must be uint8 [H, W, 3] or [H, W]"
        )
    check_size(array.shape[1], array.shape[0])
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, 2), True
    grey = (array[:, :, :1] == array).all()
    return np.ascontiguousarray(array), bool(grey)


def _checked_budget(image: np.ndarray, bytes, bpp, quality) -> tuple[int | None, int | None]:
    """The budget in bytes, or the step that a quality stands for."""
    given = [n for n, v in (("bytes", bytes), ("bpp", bpp), ("quality", quality)) if v is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} are given; only one can be kept")
    if quality is not None:
        if not 0 <= quality <= 100:
            raise ArgumentError(f"quality is {quality}; it must lie in [0, 100]")
        return None, round(224 - 0.96 * quality)
    if bytes is not None:
        if bytes < 1:
            raise ArgumentError(f"bytes is {bytes}; it must be at least 1")
        return int(bytes), None
    bpp = DEFAULT_BPP if bpp is None else bpp
    if not 0 < bpp <= 64:
        raise ArgumentError(f"bpp is {bpp}; it must lie in (0, 64]")
    return int(bpp * image.shape[0] * image.shape[1] / 8), None


def _header(image: np.ndarray, mode: str, step: int, grey: bool, model: Model) -> Header:
    digest = b"" if model.id != CUSTOM_MODEL else bytes_of_digest(model)
    height, width = image.shape[:2]
    return Header(width, height, mode, step, grey, model.id, digest)


def bytes_of_digest(model: Model) -> bytes:
    """First four bytes of the model's digest."""
    return bytes.fromhex(model.digest[:8])


def _check_model(header: Header, model: Model) -> None:
    if header.model != model.id or (header.digest and header.digest != bytes_of_digest(model)):
        wrote = header.digest.hex() if header.digest else f"release {header.model}"
        loaded = model.digest[:8] if model.id == CUSTOM_MODEL else f"release {model.id}"
        raise ModelMismatchError(
            f"the file was written with model {wrote}, loaded is {loaded}; pass --model (model=) "
            "with the weights that wrote it"
        )

# SPDX-License-Identifier: Apache-2.0
"""compress and decompress: pictures to `.otc` files and back."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from otcuda._torch import need_torch
from otcuda.codec.bitstream import (
    CUSTOM_MODEL,
    MAX_PIXELS,
    MODES,
    Header,
    check_size,
    file_bytes,
    read_header,
    too_little,
    write_file,
)
from otcuda.codec.families import Family, Models, as_models
from otcuda.codec.integer_context import Choice
from otcuda.codec.model import Model
from otcuda.codec.pictures import Networks
from otcuda.codec.quantiser import dequantised, latent_shape, step_size
from otcuda.codec.scale import place
from otcuda.errors import ArgumentError, BudgetError, Notice

EFFORTS = (0, 1)
ENGINES = ("native", "torch")
DEVICES = ("cpu", "cuda")
COARSEST = 255  # the largest index of a quantiser step
DEFAULT_BPP = 0.03
FINER_STEPS = 3  # how many finer steps conditional heights may try to fit into a budget
LARGEST_FILL = 0.12  # the largest multiplier c in lambda = c D^2 they do it with
FILL_STEPS = 32  # how many multipliers there are up to it
MOST_IMPROVED = 1.06  # times the error: more than conditional heights gain (0.25 dB)
MOST_GUESSES = 6  # of the step, before the interval is halved
STEPS_A_HALF = 20  # so many steps coarser, half of the bits: about
MOST_QUALITY = 200  # where there are weights for the steps from 2^7 down to 2^4
STEP_OF_LEAST_QUALITY, STEPS_A_QUALITY = 224, 0.96
FEEDBACK = (0.0, 0.4, 0.3, 0.2, 0.1)  # shares of the decoder's error that the encoder takes back
FAR = 64  # steps finer than its training at which a family is not even tried, if there is a finer

Callback = Callable[[str, float], None]


@dataclass
class _Picture:
    """A picture to be compressed, and how."""

    image: np.ndarray
    grey: bool
    effort: int
    engine: tuple[str, str]
    say: Callback

    def task(self, family: Family) -> _Task:
        """The same on its way through the networks of a family."""
        networks = _networks(self.engine, family.model)
        latents = networks.analyse(self.image, _share(self.say, "analysis"))
        multiplier = family.multiplier if self.effort > 0 and family.multiplier > 0 else None
        about = (family.steps[1], multiplier)
        return _Task(self.image, self.grey, family.model, networks, latents, *about, self.say)


@dataclass
class _Task:
    """A picture on its way into a file of certain weights, trained for steps up to `coarsest`."""

    image: np.ndarray
    grey: bool
    model: Model
    networks: Any
    latents: np.ndarray
    coarsest: int
    fixed_multiplier: float | None  # of the heights at a fixed quality
    say: Callback
    _done: tuple[str, float] = ("rate", 0.0)

    def tell(self, what: str, share: float) -> None:
        """Say what is done from here on; long loops repeat it, so that they can be stopped."""
        self._done = (what, share)
        self.say(what, share)

    def _heard(self, _share: float) -> None:
        self.say(*self._done)

    @property
    def off(self) -> np.ndarray | None:
        return self.model.grey_off if self.grey else None

    def file(self, step: int, symbols: np.ndarray) -> bytes:
        """The file that these symbols make."""
        return write_file(
            _header(self.image, "coded", step, self.grey, self.model),
            self.model.context.encode(symbols, step, self.off, self._heard),
        )

    def quantised(self, step: int, multiplier: float | None = None) -> Choice:
        """Symbols, values and bits of the latents at a step."""
        u = self.latents / step_size(step)
        return self.model.context.quantise(u, step, multiplier, self.off, self._heard)

    def at_quality(self, step: int) -> Choice:
        """The same where the step is given and no budget is to be met."""
        return self.quantised(step, self.fixed_multiplier)

    def error(self, step: int, values: np.ndarray) -> float:
        """Mean squared error of the decoded picture, 8 bit."""
        latents, shape = dequantised(values, step, self.model.context.unit), self.image.shape[:2]
        decoded = self.networks.synthesise(latents, step, shape, self.grey, callback=self._heard)
        return _error(decoded, self.image)


def compress(
    image: Any,
    *,
    bytes: int | None = None,
    bpp: float | None = None,
    quality: float | None = None,
    mode: str = "coded",
    effort: int = 1,
    model: Model | Models | None = None,
    engine: str = "native",
    device: str = "cpu",
    callback: Callback | None = None,
) -> bytes:
    """Compress a picture.

    Args:
        image: uint8 [H, W, 3] or [H, W], or a Pillow image as it is: transparency is dropped, an
            EXIF tag turns nothing, of 16-bit grey the upper byte is taken. (The command line shows
            what is transparent over white, and turns pictures upright.)
        bytes: the file has at most so many bytes.
        bpp: the same as bits a pixel; 0.03 where nothing is said, or the least that is possible.
        quality: a fixed quality in [0, 200] instead of a budget: the quantiser step falls from
            2^10 to 2^7 at 100 and to 2^4 at 200; over 100 only with weights for high rates. Where
            other weights take over, their steps start from a file that is no worse and no smaller.
        mode: "coded" (context model and range coder) or "fixed" (balanced codebooks, the size
            depends on the size of the picture alone).
        effort: 0 is the plain quantiser (of the mode "fixed": balanced heights, each index equally
            likely). 1 tries finer steps with conditional heights; of a `quality` it takes the
            heights that the weights say pay; in the mode "fixed" it takes the nearest codes and
            corrects the latents by what the decoder gets wrong.
        model: weights, or several (`load_models`), of which the best at this rate are taken; None
            stands for those of the package.
        engine: what runs the networks, "native" or "torch".
        device: where torch runs them, "cpu" or "cuda" ("cuda:1"); any but the CPU takes torch. The
            context model and the coder are integers on the CPU. The choice of symbols may differ
            with the rounding of the device; every decoder finds the symbols of the file.
        callback: takes (what is being done, share done) now and then; may raise to stop.

    Returns:
        The file, never over the budget.

    Raises:
        ArgumentError: an argument is not allowed, or two budgets are given.
        BudgetError: the budget cannot be met; says what can.
        BackendError: there is no torch, or it has no such device.
    """
    array, grey = _checked_image(image)
    if mode not in MODES:
        raise ArgumentError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
    if effort not in EFFORTS:
        gone = "; 2 was taken out, it gained nothing (docs/codec.md)" if effort == 2 else ""
        raise ArgumentError(f"effort is {effort!r}; it must be 0 or 1{gone}")
    budget = _checked_budget(array, bytes, bpp, quality)
    run_by = _checked_engine(engine, device)
    picture = _Picture(array, grey, effort, run_by, callback or _silent)
    models = _checked_models(model)
    if mode == "fixed":
        return _compress_fixed(picture, models, budget)
    if quality is not None:
        return _compress_at_quality(picture, models, quality)
    try:
        return _compress_coded(picture, models, budget)
    except BudgetError:
        if bytes is not None or bpp is not None:
            raise
        return _least_file(picture.task(models[0]))[1]  # a tiny picture: nobody set a limit


def decompress(
    data: bytes,
    *,
    realism: float = 0.0,
    model: Model | Models | None = None,
    engine: str = "native",
    device: str = "cpu",
    max_pixels: int | None = MAX_PIXELS,
    callback: Callback | None = None,
) -> np.ndarray:
    """Decode a file.

    With the native engine a file has the same pixels at every instruction set level and number of
    threads; with torch, on any device, few of them may differ by one grey level.

    Args:
        data: a whole `.otc` file.
        realism: 0 is the picture of least error, 1 the perceptual head's, between them a blend.
        model: weights, or several, of which those that wrote the file are taken; None stands for
            those of the package.
        engine: what runs the networks, "native" or "torch".
        device: where torch runs them, "cpu" or "cuda" ("cuda:1"); any but the CPU takes torch.
        max_pixels: larger pictures are refused before anything is allocated; None is no limit.
        callback: takes (what is being done, share done) now and then; may raise to stop.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CorruptDataError: not an `.otc` file, or a damaged one.
        ModelMismatchError: written with other weights.
        LimitError: over the limit.
        ArgumentError: realism is not in [0, 1], or there is no such engine or device.
        BackendError: there is no torch, or it has no such device.
    """
    if not 0 <= _number("realism", realism) <= 1:
        raise ArgumentError(f"realism is {realism}; it must lie in [0, 1]")
    if max_pixels is not None:
        _number("max_pixels", max_pixels)
    run_by = _checked_engine(engine, device)
    data = file_bytes(data)
    header, payload = read_header(data)
    check_size(header.width, header.height, max_pixels)
    model = _checked_models(model).writer(header)
    if realism > 0 and model.perception is None:
        warnings.warn(
            f"the weights {model.digest[:8]} have no perceptual head: realism {realism:g} is 0",
            Notice,
            stacklevel=2,
        )
        realism = 0.0
    networks = _networks(run_by, model)
    say = callback or _silent
    shape = (header.height, header.width)
    if header.mode == "fixed":
        from otcuda.codec import fixed

        latents, step = fixed.decode(model.part("fixed."), payload, header.step, shape)
    else:
        off = model.grey_off if header.grey else None
        heard = _share(say, "latents")
        _, values = model.context.decode(payload, header.step, latent_shape(shape), off, heard)
        latents, step = dequantised(values, header.step, model.context.unit), header.step
    more = {"realism": realism, "payload": payload, "callback": _share(say, "synthesis")}
    return networks.synthesise(latents, step, shape, header.grey, **more)


def _silent(what: str, share: float) -> None:
    """What is said to nobody."""


def _share(say: Callback, what: str) -> Callable[[float], None]:
    """What the native loops call, with the share alone; the beginning is said here."""
    say(what, 0.0)
    return lambda share: say(what, share)


def best_quality(model: Model | Models | None = None) -> int:
    """The largest `quality` that weights reach: 100, or more where there are some for high rates.

    Args:
        model: as in `compress`.
    """
    finest = _checked_models(model)[-1].steps[0]
    return max(100, min(MOST_QUALITY, int((STEP_OF_LEAST_QUALITY - finest) / STEPS_A_QUALITY)))


def _checked_engine(engine: str, device: str) -> tuple[str, str]:
    """Engine and device that run the networks."""
    if engine not in ENGINES:
        raise ArgumentError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
    if not isinstance(device, str) or device.partition(":")[0] not in DEVICES:
        raise ArgumentError(f"device is {device!r}; it must be one of {', '.join(DEVICES)}")
    return ("native" if engine == "native" and device == "cpu" else "torch"), device


def _networks(engine: tuple[str, str], model: Model) -> Any:
    name, device = engine
    if name == "native":
        return Networks(model)
    need_torch('engine="torch"' if device == "cpu" else f"device={device!r}")
    from otcuda.codec.pictures_torch import TorchNetworks

    return TorchNetworks(model, device)


@dataclass
class _Candidate:
    """The plain file of one family: the finest step that fits, and its error."""

    task: _Task
    step: int
    blob: bytes
    error: float


def _compress_coded(picture: _Picture, models: Models, budget: int) -> bytes:
    """The best file within the budget; where two families overlap, that of less error."""
    found: list[_Candidate] = []
    for k, family in enumerate(models):
        finer = models[k + 1] if k + 1 < len(models) else None
        task = picture.task(family)
        try:
            step, blob = _finest_step(task, budget, past=not found)
        except BudgetError:
            if not found:
                raise
            break
        last = finer is None or step > finer.steps[1]
        if picture.effort == 0 and last and not found:
            return blob
        far = finer is not None and step < family.steps[0] - FAR
        error = math.inf if far else task.error(step, task.quantised(step).values)
        found.append(_Candidate(task, step, blob, error))
        if last:
            break
    least = min(one.error for one in found)
    near = [one for one in found if one.error <= MOST_IMPROVED * least]
    improved = [_improved(one, budget, picture) for one in near]
    return min(improved, key=lambda pair: pair[0])[1]


def _improved(plain: _Candidate, budget: int, picture: _Picture) -> tuple[float, bytes]:
    """(error, file) of the plain encoder, or of a better one that the effort pays for."""
    best, task = (plain.error, plain.blob), plain.task
    if picture.effort == 0:
        return best
    room, least = 8 * (budget - _head_bytes(task)), 1
    for finer in range(1, FINER_STEPS + 1):
        task.tell("filling the budget", finer / (FINER_STEPS + 1))
        if plain.step - finer >= 0:
            least, filled = _filled(task, plain.step - finer, room, budget, least)
            best = min([best, *filled], key=lambda pair: pair[0])
    return best


def _filled(
    task: _Task, step: int, room: float, budget: int, least: int
) -> tuple[int, list[tuple[float, bytes]]]:
    """A finer step with the least multiplier that makes it fit, in 1 .. `FILL_STEPS`.

    Args:
        task: the picture.
        step: the finer step.
        room: bits of the symbols.
        budget: bytes of the file.
        least: no smaller multiplier is tried.

    Returns:
        The multiplier, and (error, file); or nothing where none fits.
    """
    too_small, fits, fitting = least - 1, FILL_STEPS + 1, None
    guess = FILL_STEPS // 2 if least == 1 else least + 3
    while fits - too_small > 1:
        guess = min(guess, fits - 1)
        quantised = task.quantised(step, LARGEST_FILL * guess / FILL_STEPS)
        if quantised.bits <= room:
            fits, fitting = guess, quantised
        else:
            too_small = guess
        guess = too_small + 6 if fitting is None else (too_small + fits) // 2
    if fitting is None:
        return least, []
    blob = task.file(step, fitting.symbols)
    return fits, [(task.error(step, fitting.values), blob)] if len(blob) <= budget else []


def _finest_step(task: _Task, budget: int, past: bool = True) -> tuple[int, bytes]:
    """The smallest quantiser step whose file fits, by the model's bits at few steps.

    Args:
        task: the picture.
        budget: bytes of the file.
        past: look beyond the steps that were trained too, where only those fit.

    Raises:
        BudgetError: none fits.
    """
    room = 8 * (budget - _head_bytes(task))
    # Bits fall with the step, up to noise; where no step was trained they may rise again.
    low, high = 0, min(task.coarsest, COARSEST - 1)
    known = {high: _log_bits(task, high)}
    target = math.log2(max(room, 1))
    if known[high] > target:
        if not past:
            raise BudgetError(f"{budget} bytes need a coarser step than these weights know")
        low, high = high + 1, COARSEST
    while low < high:
        task.tell("rate", 1 - (high - low) / COARSEST)
        guessed = len(known) <= MOST_GUESSES
        step = _guessed_step(known, target, low, high) if guessed else (low + high) // 2
        known[step] = _log_bits(task, step)
        low, high = (low, step) if known[step] <= target else (step + 1, high)
    for step in range(low, COARSEST + 1):
        blob = task.file(step, task.quantised(step).symbols)
        if len(blob) <= budget:
            return step, blob
    step, blob = _least_file(task)
    if len(blob) <= budget:
        return step, blob
    raise too_little(budget, task.image.shape, len(blob))


def _least_file(task: _Task) -> tuple[int, bytes]:
    """Step and file of the fewest bytes: beyond the trained steps each is looked at."""
    bits = {s: task.quantised(s).bits for s in range(task.coarsest, COARSEST + 1)}
    near = [s for s in bits if bits[s] <= min(bits.values()) + 16]  # files are whole bytes
    blobs = ((s, task.file(s, task.quantised(s).symbols)) for s in near)
    return min(blobs, key=lambda pair: len(pair[1]))


def _log_bits(task: _Task, step: int) -> float:
    """log2 of the bits of the latents at a step."""
    return math.log2(max(task.quantised(step).bits, 1.0))


def _guessed_step(known: dict[int, float], target: float, low: int, high: int) -> int:
    """Where the bits should be the wanted ones: on the line through the two nearest known steps.

    Args:
        known: log2 of the bits, by step.
        target: log2 of the bits wanted.
        low: the least step that is possible.
        high: a step that fits.
    """
    near = sorted(known, key=lambda step: abs(known[step] - target))[:2]
    slope = -STEPS_A_HALF
    if len(near) == 2 and known[near[0]] != known[near[1]]:
        slope = (near[0] - near[1]) / (known[near[0]] - known[near[1]])
    guess = math.floor(near[0] + slope * (target - known[near[0]]))
    return min(max(guess, low), high - 1)


def _head_bytes(task: _Task) -> int:
    return len(write_file(_header(task.image, "coded", 0, task.grey, task.model), b""))


def _compress_at_quality(picture: _Picture, models: Models, quality: float) -> bytes:
    """The file at a place of the one scale of all families."""
    if quality > best_quality(models):
        raise ArgumentError(
            f"quality {quality:g} needs weights for high rates; those at hand reach "
            f"{best_quality(models)}"
        )
    nominal = STEP_OF_LEAST_QUALITY - STEPS_A_QUALITY * quality
    task, step = place(picture, models, nominal)
    return task.file(step, task.at_quality(step).symbols)


def _compress_fixed(picture: _Picture, models: Models, budget: int | None) -> bytes:
    from otcuda.codec import fixed

    picture.say("codebooks", 0.5)
    model = next((f.model for f in models if "fixed.0.bits" in f.model.tensors), models[0].model)
    part = model.part("fixed.")
    array, grey = picture.image, picture.grey
    head = len(write_file(_header(array, "fixed", 0, grey, model), b""))
    number = fixed.choose_table(part, array.shape[:2], budget, head)
    networks = _networks(picture.engine, model)
    latents = networks.analyse(array, _share(picture.say, "analysis"))
    payload = fixed.encode(part, latents, number)
    if picture.effort > 0:
        payload = _nearer(picture, networks, part, latents, number)
    return write_file(_header(array, "fixed", number, grey, model), payload)


def _nearer(picture: _Picture, networks: Any, part: Any, latents: np.ndarray, number: int) -> bytes:
    """The fixed payload of least error: nearest codes of latents that take the error back.

    The analysis of what is decoded says in which direction the latents were missed.
    """
    from otcuda.codec import fixed

    shape, target, done = picture.image.shape[:2], latents, 0.0

    def heard(_share: float) -> None:
        picture.say("codebooks", done)

    def decoded(payload: bytes) -> np.ndarray:
        values, step = fixed.decode(part, payload, number, shape)
        return networks.synthesise(values, step, shape, picture.grey, callback=heard)

    best = fixed.encode(part, latents, number)
    shown = decoded(best)
    least = _error(shown, picture.image)
    for k, rate in enumerate(FEEDBACK):
        done = k / len(FEEDBACK)
        heard(done)
        if rate > 0:
            target = target + rate * (latents - networks.analyse(shown, heard))
        payload = fixed.encode(part, target, number, "nearest")
        shown = decoded(payload)
        error = _error(shown, picture.image)
        if error < least:
            best, least = payload, error
    return best


def _error(decoded: np.ndarray, image: np.ndarray) -> float:
    """Mean squared error, 8 bit."""
    return float(np.square(decoded.astype(np.float32) - image).mean())


def _checked_image(image: Any) -> tuple[np.ndarray, bool]:
    """uint8 [H, W, 3] and whether it is grey."""
    if hasattr(image, "convert"):
        image = _eight_bits(image)
    try:
        array = np.asarray(image)
    except (RuntimeError, TypeError, ValueError) as error:  # ragged lists; tensors with a gradient
        raise ArgumentError(f"image is no array of pixels: {error}") from error
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ArgumentError(
            f"image is {array.dtype} {list(array.shape)}; it must be uint8 [H, W, 3] or [H, W]"
        )
    check_size(array.shape[1], array.shape[0])
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, 2), True
    grey = (array[:, :, :1] == array).all()
    return np.ascontiguousarray(array), bool(grey)


def _eight_bits(image: Any) -> Any:
    """A Pillow image as RGB or 8-bit grey; of 16-bit grey the upper byte, as on the command line.

    Pillow's own conversion would clip at 255: a white picture, and nobody told.
    """
    if image.mode.startswith("I"):
        return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    if image.mode == "F":
        raise ArgumentError("image is of Pillow's mode F, which has no range; convert it to L")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def _checked_budget(image: np.ndarray, bytes, bpp, quality) -> int | None:
    """The budget in bytes; None where a quality is asked for."""
    given = [n for n, v in (("bytes", bytes), ("bpp", bpp), ("quality", quality)) if v is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} are given; only one can be kept")
    if quality is not None:
        if not 0 <= _number("quality", quality) <= MOST_QUALITY:
            raise ArgumentError(f"quality is {quality}; it must lie in [0, {MOST_QUALITY}]")
        return None
    if bytes is not None:
        if not 1 <= _number("bytes", bytes) < math.inf:
            raise ArgumentError(f"bytes is {bytes}; it must be at least 1")
        return int(bytes)
    bpp = DEFAULT_BPP if bpp is None else bpp
    if not 0 < _number("bpp", bpp) <= 64:
        raise ArgumentError(f"bpp is {bpp}; it must lie in (0, 64]")
    return int(bpp * image.shape[0] * image.shape[1] / 8)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (str, bytes)):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    raise ArgumentError(f"{name} is {value!r}; it must be a number")


def _checked_models(model: Any) -> Models:
    if not isinstance(model, (Model, Models, type(None))):
        raise ArgumentError(
            f"model is {model!r:.60}; it must come from load_model(path) or load_models(path)"
        )
    return as_models(model)


def _header(image: np.ndarray, mode: str, step: int, grey: bool, model: Model) -> Header:
    digest = b"" if model.id != CUSTOM_MODEL else bytes_of_digest(model)
    height, width = image.shape[:2]
    return Header(width, height, mode, step, grey, model.id, digest)


def bytes_of_digest(model: Model) -> bytes:
    """First four bytes of the model's digest."""
    return bytes.fromhex(model.digest[:8])

# SPDX-License-Identifier: Apache-2.0
"""The ops of csrc/cuda on the emulator, with the arrays of NumPy; and what equal results are."""

from __future__ import annotations

import ctypes

import numpy as np
from emulation.emulator import Emulator, InOut, Output, Scratch, aligned

SOURCES = ["normal", "uniform", "gaussian_cdf"]


def emulated_power_argmax(
    emulator: Emulator, x, y, h, workspace: Scratch | None = None, **settings
):
    """Value and index; `settings` are those of Emulator.call."""
    kind = int(x.dtype == np.float64)
    sizes = (len(x), len(y), x.shape[1])
    value = Output(aligned(np.zeros(len(x), x.dtype)))
    index = Output(aligned(np.zeros(len(x), np.int64)))
    scratch = workspace or emulator.workspace("power_argmax", kind, *sizes)
    inputs = [aligned(a) for a in (x, y, h)]
    emulator.call("power_argmax", kind, *sizes, *inputs, value, index, scratch, **settings)
    return value.array, index.array


def emulated_screen(emulator: Emulator, x, y, h, by="mma", workspace=None, **settings):
    """Value, index, and how many samples of the last chunk had no certificate."""
    sizes = (len(x), len(y), x.shape[1])
    value = Output(aligned(np.zeros(len(x), x.dtype)))
    index = Output(aligned(np.zeros(len(x), np.int64)))
    scratch = workspace or emulator.workspace("power_argmax_screen", *sizes)
    inputs = [aligned(a) for a in (x, y, h)]
    numbers = (*sizes, int(by == "wgmma"))
    emulator.call("power_argmax_screen", *numbers, *inputs, value, index, scratch, **settings)
    return (value.array, index.array), int(scratch.array[:4].view(np.int32)[0])


def emulated_topk(emulator: Emulator, x, y, h, k, workspace: Scratch | None = None, **settings):
    """Value and index, [B, k]."""
    kind, sizes = int(x.dtype == np.float64), (len(x), len(y), x.shape[1])
    value = Output(aligned(np.zeros((len(x), k), x.dtype)))
    index = Output(aligned(np.zeros((len(x), k), np.int64)))
    scratch = workspace or emulator.workspace("power_topk", kind, *sizes)
    inputs = [aligned(a) for a in (x, y, h)]
    emulator.call("power_topk", kind, *sizes, k, *inputs, value, index, scratch, **settings)
    return value.array, index.array


def emulated_gap(emulator: Emulator, x, y, h, **settings):
    """Value, index and gap, [B]."""
    kind, sizes = int(x.dtype == np.float64), (len(x), len(y), x.shape[1])
    kinds = (x.dtype, np.int64, x.dtype)
    outputs = [Output(aligned(np.zeros(len(x), dtype))) for dtype in kinds]
    scratch = emulator.workspace("power_topk", kind, *sizes)
    inputs = [aligned(a) for a in (x, y, h)]
    emulator.call("power_argmax_gap", kind, *sizes, *inputs, *outputs, scratch, **settings)
    return tuple(output.array for output in outputs)


def emulated_cell_mass(emulator: Emulator, index, N, weights=None, **settings):
    """(mass, first stray sample, first sample of infinite weight)."""
    scratch = emulator.workspace("cell_mass", N, int(weights is not None))
    index = aligned(index)
    if weights is None:
        mass = Output(aligned(np.zeros(N, np.int64)))
        emulator.call("cell_mass_counts", len(index), N, index, mass, scratch, **settings)
    else:
        mass = Output(aligned(np.zeros(N, weights.dtype)))
        kind = int(weights.dtype == np.float64)
        arguments = (kind, len(index), N, index, aligned(weights), mass, scratch)
        emulator.call("cell_mass_sums", *arguments, **settings)
    return mass.array, *scratch.array[:16].view(np.int64).tolist()


def emulated_samples(emulator: Emulator, B, D, dtype, source, *, seed, stream, offset):
    """Samples [B, D], as otcuda.source_samples draws them."""
    out = Output(aligned(np.zeros((B, D), dtype)))
    kind = int(dtype == "f8")
    numbers = (SOURCES.index(source), seed, stream, offset)
    emulator.call("source_samples", kind, B, D, *numbers, out)
    return out.array


def emulated_step(emulator: Emulator, h, m, v, mass, nu, step, *, lr, **settings):
    """New h, m, v."""
    state = [InOut(aligned(a)) for a in (h, m, v)]
    numbers = (int(h.dtype == np.float64), len(h), step, lr, 0.9, 0.999, 1e-8)
    arrays = (*state, aligned(mass), aligned(nu))
    emulator.call("heights_adam_step", *numbers, *arrays, **settings)
    return [a.array for a in state]


def emulated_solve(emulator: Emulator, y, nu, state, source, *, iterations, batch, lr, **options):
    """chi2 of the steps made; `state` moves on, as in otcuda.heights_adam_solve.

    A step that is an array of one int64 counts on the device.
    """
    N, D = y.shape
    kind = int(y.dtype == np.float64)
    rates = np.full(iterations, lr) if np.ndim(lr) == 0 else lr
    on_device = InOut(aligned(state.step)) if isinstance(state.step, np.ndarray) else None
    steps = np.array([-1 if on_device else state.step], np.int64)  # -1: nobody may look at it
    chi2 = Output(aligned(np.zeros(iterations)))
    h, m, v = (InOut(aligned(a)) for a in (state.h, state.m, state.v))
    numbers = (kind, N, D, batch, iterations, SOURCES.index(source), options.pop("seed", 0), 1)
    host = (options.pop("stop_after", 0), rates.ctypes.data, steps.ctypes.data)
    scratch = emulator.workspace("heights_adam_solve", kind, N, D, batch)
    arrays = (aligned(y), aligned(nu), h, m, v, chi2, on_device, scratch)
    try:
        emulator.call("heights_adam_solve", *numbers, *host, *arrays, **options)
    finally:
        state.h, state.m, state.v = h.array, m.array, v.array
        if on_device:
            assert steps[0] == -1
            done, state.step = int((on_device.array - state.step)[0]), on_device.array
        else:
            state.step, done = int(steps[0]), int(steps[0]) - state.step
    return chi2.array[:done]


class EmulatedRans:
    """rans32 by one set of tables: `tables` is an otcuda.coding.Tables."""

    def __init__(self, emulator: Emulator, tables):
        from otcuda._ops import rans32_image

        self._set(emulator, tables._native, rans32_image(tables._native))

    @classmethod
    def of(cls, emulator, native_tables, image):
        """By handle and image."""
        rans = cls.__new__(cls)
        rans._set(emulator, native_tables, image)
        return rans

    def _set(self, emulator, native_tables, image):
        from otcuda._ops import native

        shape = native.rans32_shape(native_tables)[:-1]
        self.emulator, self.shape = emulator, np.array(shape, np.int64)
        self.image = aligned(image)

    def encode(self, symbols, index, block, **settings):
        """(data, directory, faults); data cut to its size."""
        n, blocks = len(symbols), -(-len(symbols) // block)
        bound = self._ask("bound", self.shape.ctypes.data, n, block)
        data = Output(aligned(np.full(bound, 0xAA, np.uint8)))
        directory = Output(aligned(np.zeros((blocks, 3), np.uint32)))
        size, faults = (Output(aligned(np.zeros(count, np.int64))) for count in (1, 3))
        work = Scratch(self._ask("encode_workspace", self.shape.ctypes.data, n, block))
        data.partly = True
        outputs = (data, directory, size, faults, work)
        self._call("encode", (aligned(symbols), index, block, bound), outputs, settings)
        return data.array[: int(size.array[0])], directory.array, faults.array.tolist()

    def decode(self, data, directory, n, index, block, dtype="i4", **settings):
        """(symbols, faults); blocks that are refused leave their symbols as they were, zero."""
        symbols = Output(aligned(np.zeros(n, dtype)))
        length = settings.pop("size", len(data))
        size, faults = aligned(np.array([length])), Output(aligned(np.zeros(3, np.int64)))
        work = Scratch(self._ask("decode_workspace", n, block))
        symbols.partly = True
        outputs = (aligned(data), aligned(directory), size, faults, work)
        self._call("decode", (symbols, index, block, len(data)), outputs, settings)
        return symbols.array, faults.array.tolist()

    def _ask(self, what, *numbers):
        ask = getattr(self.emulator.lib, f"emulated_rans32_{what}")
        ask.restype = ctypes.c_int64
        return ask(*map(ctypes.c_int64, numbers))

    def _call(self, verb, given, outputs, settings):
        symbols, index, block, capacity = given
        array = symbols.array if isinstance(symbols, Output) else symbols
        widths = array.itemsize, 0 if index is None else index.itemsize
        numbers = (self.shape.ctypes.data, len(array), *widths, block, capacity)
        index = None if index is None else aligned(index)
        arrays = (self.image, symbols, index, *outputs)
        self.emulator.call(f"rans32_{verb}", *numbers, *arrays, **settings)


class EmulatedRange(EmulatedRans):
    """range64, many messages at once, by one set of tables."""

    def encode(self, symbols, index, ends, **settings):
        """(data, byte_ends, faults); data cut to its size."""
        sizes = (self.shape.ctypes.data, symbols.itemsize, len(symbols), len(ends))
        data = Output(aligned(np.full(self._ask("bound", *sizes), 0xAA, np.uint8)), partly=True)
        byte_ends = Output(aligned(np.zeros(len(ends), np.int64)))
        given = (aligned(symbols), index, aligned(np.array(ends, np.int64)), data, byte_ends)
        faults = self._run("encode", given, self._ask("encode_workspace", *sizes), settings)
        size = int(byte_ends.array[-1]) if len(ends) else 0
        return data.array[:size], byte_ends.array, faults

    def decode(self, data, byte_ends, n, index, ends, dtype="i4", **settings):
        """(symbols, faults); messages that are refused leave their symbols as they were, zero."""
        symbols = Output(aligned(np.zeros(n, dtype)), partly=True)
        ends = aligned(np.array(ends, np.int64))
        given = (symbols, index, ends, aligned(data), aligned(np.array(byte_ends, np.int64)))
        return symbols.array, self._run("decode", given, self._ask("decode_workspace"), settings)

    def _ask(self, what, *numbers):
        ask = getattr(self.emulator.lib, f"emulated_range64_{what}")
        ask.restype = ctypes.c_int64
        return ask(*map(ctypes.c_int64, numbers))

    def _run(self, verb, given, workspace, settings):
        symbols, index, ends, data, byte_ends = given
        flat, bytes_ = (a.array if isinstance(a, Output) else a for a in (symbols, data))
        widths = flat.itemsize, 0 if index is None else index.itemsize
        numbers = (self.shape.ctypes.data, len(flat), len(ends), *widths, len(bytes_))
        index = None if index is None else aligned(index)
        faults = Output(aligned(np.zeros(3, np.int64)))
        arrays = (self.image, symbols, index, ends, data, byte_ends, faults, Scratch(workspace))
        self.emulator.call(f"range64_{verb}", *numbers, *arrays, **settings)
        return faults.array.tolist()


def assert_same_bits(got, want):
    """Equal to the bit, but for the payload of a NaN."""
    (value, index), (want_value, want_index) = got, want
    np.testing.assert_array_equal(index, want_index)
    assert value.dtype == want_value.dtype
    bits = f"u{value.dtype.itemsize}"
    assert ((value.view(bits) == want_value.view(bits)) | np.isnan(want_value)).all()
    assert (np.isnan(value) == np.isnan(want_value)).all()


def assert_same_state(got, want):
    """Heights, means and step are the same bits."""
    assert got.step == want.step
    for name in ("h", "m", "v"):
        assert getattr(got, name).tobytes() == getattr(want, name).tobytes(), name

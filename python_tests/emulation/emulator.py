# SPDX-License-Identifier: Apache-2.0
"""Builds csrc/cuda with g++ and calls it: CUDA kernels on a CPU, every access judged.

    emulator = Emulator(build(folder))
    emulator.call("power_argmax", 0, B, N, D, x, y, h, Output(value), Output(index), Scratch(bytes))

Arrays become device buffers: inputs must not be written, outputs must be written before they are
read, and wholly. A fault is an EmulationError that names what happened, file and line.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OPS = (
    "power_argmax",
    "power_argmax_screen",
    "power_argmax_wgmma",
    "power_topk",
    "cell_mass",
    "source_samples",
    "heights_adam_step",
    "heights_adam_solve",
    "range64",
    "rans32",
    "rans32_encode",
)
PLANTED = ("planted", "planted_wgmma")  # right kernels, and ones with a bug each
HOST = (
    "fibers.cpp",
    "memory.cpp",
    "mbarriers.cpp",
    "tensor_cores.cpp",
    "wgmma.cpp",
    "traffic.cpp",
    "api.cpp",
)
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
FLAGS = ["-std=c++17", "-g1", "-fPIC", "-ffp-contract=off", "-mfma", "-fno-gnu-unique"]
CHECKED = [
    "-Og",  # kernels run as fast as at -O1 and compile in half the time
    "-fno-tree-sra",
    "-fsanitize=thread",
    "--param=tsan-instrument-func-entry-exit=0",
]


class EmulationError(AssertionError):
    """What the emulator found, or what a launcher threw."""


@dataclass
class Output:
    """An array that the kernels must fill (`partly`: or leave); what it held is not data."""

    array: np.ndarray
    partly: bool = False


@dataclass
class InOut:
    """An array that the kernels read and write."""

    array: np.ndarray


class Scratch(Output):
    """Workspace of so many bytes: need not be filled, must not be read before it is written."""

    def __init__(self, nbytes: int):
        super().__init__(aligned(np.empty(nbytes, np.uint8)), partly=True)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy on a 256-byte boundary, as a CUDA allocator would give."""
    raw = np.zeros(array.nbytes + 256, np.uint8)
    copy = raw[-raw.ctypes.data % 256 :][: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


# --- building -------------------------------------------------------------------------------------


def compiler() -> str | None:
    """The g++ that builds the emulator, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def source_of(name: str) -> Path:
    """A .cu file by its stem: an op of csrc/cuda, or one of this folder."""
    op = ROOT / "csrc" / "cuda" / f"{name}.cu"
    return op if op.exists() else HERE / f"{name}.cu"


def digest(paths: Iterable[Path], *words: str) -> str:
    """Of file contents and words: what a cached build depends on."""
    h = hashlib.sha256("\0".join(words).encode())
    for path in sorted(paths):
        h.update(path.read_bytes())
    return h.hexdigest()[:16]


def sources_of(source: Path) -> set[Path]:
    """A file and all that it includes by name, of csrc and of this folder."""
    found, left = set(), [source]
    while left:
        path = left.pop()
        if path in found:
            continue
        found.add(path)
        for name in re.findall(r'^\s*#\s*include "([^"]+)"', path.read_text(), re.M):
            left += [p for p in (ROOT / "csrc" / name, HERE / name) if p.exists()]
    return found


def compile_command(source: Path, out: Path, flags: Iterable[str]) -> list[str]:
    """What makes one object file."""
    paths = ["-I", str(ROOT / "csrc"), "-I", str(HERE)]
    emulated = ["-x", "c++", "-include", str(HERE / "cuda_emu.h")]
    files = ["-c", str(source), "-o", str(out)]
    return [str(compiler()), *FLAGS, *WARNINGS, *flags, *paths, *emulated, *files]


def compile_object(source: Path, out: Path, flags: Iterable[str]) -> None:
    """One object file."""
    command = compile_command(source, out, flags)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"g++ could not compile {source.name}:\n{run.stderr[-4000:]}")


def link(objects: Iterable[Path], out: Path) -> Path:
    """A shared library that ctypes can load; written whole or not at all."""
    partial = out.with_suffix(f".{os.getpid()}.partial")
    command = [compiler(), "-shared", "-Wl,-Bsymbolic", *map(str, objects), "-o", str(partial)]
    subprocess.run(command, check=True, capture_output=True)
    partial.replace(out)
    return out


def build_object(source: Path, flags: list[str], cache: Path) -> Path:
    """The object of one file; kept in `cache` until the file or what it includes changes."""
    read = sources_of(source) | sources_of(HERE / "cuda_emu.h")
    out = cache / f"{source.stem}.{digest(read, *FLAGS, *flags, str(compiler()))}.o"
    if not out.exists():
        partial = out.with_suffix(f".{os.getpid()}.partial")
        compile_object(source, partial, flags)
        partial.replace(out)
    return out


def build_host(cache: Path) -> list[Path]:
    """The emulator itself and the C interface, never instrumented."""
    files = (*(HERE / name for name in HOST), ROOT / "csrc" / "common" / "check.cpp")
    return [build_object(source, ["-O2"], cache) for source in files]


def build_checked(name: str, cache: Path) -> Path:
    """The instrumented object of one .cu file."""
    return build_object(source_of(name), CHECKED, cache)


def build(cache: Path) -> Path:
    """The library with all ops and the planted bugs; kept in `cache` until a source changes."""
    objects = [*build_host(cache), *(build_checked(name, cache) for name in (*OPS, *PLANTED))]
    library = cache / f"emulated.{digest([], *(path.name for path in objects))}.so"
    return library if library.exists() else link(objects, library)


# --- calling --------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """Wavefronts (shared) or sectors (global) of one source line, and the least possible."""

    place: str
    memory: str
    requests: int
    units: int
    ideal: int

    @property
    def ratio(self) -> float:
        """1.0 is free of conflicts, or fully coalesced."""
        return self.units / self.ideal


class Emulator:
    """One loaded library. Not thread-safe, like the emulator inside."""

    def __init__(self, library: Path):
        self.path = library
        self.lib = ctypes.CDLL(str(library))
        self.lib.emu_take_traffic.restype = ctypes.c_char_p
        self.lib.emu_host_error.restype = ctypes.c_char_p
        self.lib.emu_unwritten.restype = ctypes.c_size_t

    def workspace(self, op: str, *sizes: int) -> Scratch:
        """What `emulated_<op>_workspace(sizes...)` asks for."""
        ask = getattr(self.lib, f"emulated_{op}_workspace")
        ask.restype = ctypes.c_int64
        return Scratch(ask(*(ctypes.c_int64(size) for size in sizes)))

    def call(
        self,
        op: str,
        *arguments: int | float | np.ndarray | Output | InOut | None,
        seed: int = 1,
        preempt: int = 0,
        processors: int = 2,
        traffic: bool = False,
        most_accesses: int = 0,
        mma_error: int = 0,
    ) -> None:
        """`emulated_<op>(arguments...)`; a Scratch is passed as pointer and size.

        Args:
            op: name in api.cpp, without its prefix.
            arguments: integers, floats, and arrays by role: plain ones are inputs.
            seed: order of threads; 0 is ascending.
            preempt: also switch threads at one access in so many; 0: only where they wait.
            processors: what the device says it has; launchers split work by it.
            traffic: count wavefronts and sectors, for `take_traffic`.
            most_accesses: a launch beyond is called endless; 0: no limit.
            mma_error: each result of the tensor cores as far off as common/power_argmax_screen.h
                allows: 1 above, -1 below, 2 either way, 3 above for targets whose numbers
                are odd and below for the others; 0: rounded to nearest.

        Raises:
            EmulationError: the kernels broke a rule, or the launcher threw.
        """
        lib = self.lib
        lib.emu_clear()
        lib.emu_configure(
            ctypes.c_uint(seed),
            ctypes.c_uint(preempt),
            ctypes.c_int(processors),
            ctypes.c_int(traffic),
            ctypes.c_uint64(most_accesses),
            ctypes.c_int(mma_error),
        )
        values = []
        for k, argument in enumerate(arguments):
            values += self._argument(f"arg{k}", argument)
        function = getattr(lib, f"emulated_{op}")
        function.restype = ctypes.c_char_p
        error = function(*values) or lib.emu_host_error()
        if error:
            raise EmulationError(self._with_lines(error.decode()))
        for k, argument in enumerate(arguments):
            if isinstance(argument, Output) and not argument.partly:
                left = lib.emu_unwritten(ctypes.c_void_p(argument.array.ctypes.data))
                if left:
                    raise EmulationError(f"{left} bytes of output arg{k} were never written")

    def take_traffic(self) -> list[Traffic]:
        """Counts by source line since the last call, hottest first."""
        lines: dict[tuple[str, str], Traffic] = {}
        rows = [line.split() for line in self.lib.emu_take_traffic().decode().splitlines()]
        places = self._lines([int(row[0][1:], 16) for row in rows])
        for row, place in zip(rows, places, strict=True):
            line = lines.setdefault((place, row[1]), Traffic(place, row[1], 0, 0, 0))
            line.requests += int(row[2])
            line.units += int(row[3])
            line.ideal += int(row[4])
        return sorted(lines.values(), key=lambda line: -line.requests)

    def _argument(self, name: str, argument) -> list:
        if argument is None:
            return [ctypes.c_void_p(None)]
        if isinstance(argument, float):
            return [ctypes.c_double(argument)]
        if isinstance(argument, int):
            return [ctypes.c_int64(argument)]
        kind = 1 if isinstance(argument, Output) else 2 if isinstance(argument, InOut) else 0
        array = argument if kind == 0 else argument.array
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        pointer = ctypes.c_void_p(array.ctypes.data)
        narrow = array.itemsize < 4 and not isinstance(argument, Scratch)
        granule = array.itemsize if narrow else 4 if array.nbytes % 4 == 0 else 1  # of a cell
        self.lib.emu_add_buffer(
            pointer,
            ctypes.c_size_t(array.nbytes),
            ctypes.c_size_t(granule),
            ctypes.c_int(kind),
            name.encode(),
        )
        size = [ctypes.c_int64(array.nbytes)] if isinstance(argument, Scratch) else []
        return [pointer, *size]

    def _lines(self, offsets: list[int]) -> list[str]:
        """file:line of code addresses, seen through the inlined frames of cuda_emu.h."""
        if not offsets:
            return []
        command = ["addr2line", "-a", "-s", "-i", "-e", str(self.path), *map(hex, offsets)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        frames = [part.split() for part in re.split(r"^0x[0-9a-f]+\n", text, flags=re.M)[1:]]
        return [
            next((w for w in f if ":" in w and not w.startswith("cuda_emu.h")), f[0])
            for f in frames
        ]

    def _with_lines(self, message: str) -> str:
        offsets = re.findall(r"@(0x[0-9a-f]+)", message)
        for offset, line in zip(offsets, self._lines([int(o, 16) for o in offsets]), strict=True):
            message = message.replace(f"@{offset}", f"at {line}")
        return message

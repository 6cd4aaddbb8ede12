# SPDX-License-Identifier: Apache-2.0
"""Runs the PTX that nvcc made, in NumPy: it sees what the source emulator cannot.

That is nvcc's own output and the inline PTX of shim.cuh. A register is an array with one entry a
thread of the block; the threads with the lowest program counter step first, collectives wait for
the lanes they name, cp.async lands when a wait says so. Only the opcodes that our kernels use are
known, anything else raises. Rounding is exact: fma is one rounding, division and root are IEEE.

    launch(kernel(ptx, "pack_heights"), (blocks,), 128, [h, N, Written(packed)])
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import exact
import numpy as np
from emulation.ptx_arithmetic import (
    ARITHMETIC,
    BITS,
    LOGIC,
    TYPES,
    PtxError,
    compare,
    convert,
    extended,
    insert,
    quiet,
    shift,
)

SHARED = 1 << 20  # where shared memory begins; 0 is no address
PARAMETERS = 1 << 13  # and each parameter, for kernels that take its address


@dataclass
class Written:
    """An array that the kernel may write; plain arrays are inputs."""

    array: np.ndarray


@dataclass
class Instruction:
    guard: str | None  # "%p3" or "!%p3"
    name: str
    parts: list[str]  # "ld", "global", "f32"
    args: list[str]


@dataclass
class Kernel:
    params: list[tuple[str, str, int]]  # name, type, bytes
    shared: dict[str, int]  # address of each static array; "" is where dynamic memory begins
    labels: dict[str, int]
    code: list[Instruction]


# --- reading --------------------------------------------------------------------------------------


def kernel(ptx: str, name: str) -> Kernel:
    """The one kernel whose mangled name holds `name`."""
    found = re.findall(rf"\.entry (\w*{name}\w*)\s*\((.*?)\)[^{{]*\n\{{(.*?)\n\}}", ptx, re.S)
    if len(found) != 1:
        raise PtxError(f"{len(found)} kernels are called {name}")
    _, head, body = found[0]
    body = re.sub(r"//[^\n]*", "", body)
    labels, code = _instructions(body)
    return Kernel(_params(head), _shared(ptx, body), labels, code)


def _params(head: str) -> list[tuple[str, str, int]]:
    params = []
    for kind, name, size in re.findall(
        r"\.param (?:\.align \d+ )?\.(\w+) (\w+)(?:\[(\d+)\])?", head
    ):
        params.append((name, kind, int(size) if size else TYPES[kind].itemsize))
    return params


def _shared(ptx: str, body: str) -> dict[str, int]:
    arrays, top = {}, SHARED
    pattern = r"\.shared (?:\.align (\d+) )?\.(\w+) ([\w$]+)(?:\[(\d+)\])?;"
    for align, kind, name, count in re.findall(pattern, body):
        align, size = int(align or TYPES[kind].itemsize), TYPES[kind].itemsize * int(count or 1)
        top = -(-top // align) * align
        arrays[name], top = top, top + size
    arrays[""] = -(-top // 16) * 16
    for name in re.findall(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[\]", ptx):
        arrays[name] = arrays[""]
    return arrays


def _instructions(body: str) -> tuple[dict[str, int], list[Instruction]]:
    labels: dict[str, int] = {}
    code: list[Instruction] = []
    for line in body.splitlines():
        text = line.strip().rstrip(";").strip()
        if match := re.match(r"(\$\w+):", text):
            labels[match[1]] = len(code)
            continue
        text = re.sub(r"^\{\s*|\s*\}$", "", text) if not re.search(r"\{[^}]*,", text) else text
        if not text or text.startswith(".") or text in "{}":
            continue
        guard, name, rest = re.match(r"(?:@(!?%p\d+)\s+)?([\w.:]+)\s*(.*)", text).groups()
        args = re.findall(r"\[[^\]]*\]|\{[^}]*\}|[^,\s]+", rest)
        code.append(Instruction(guard, name, name.replace("::", ".").split("."), args))
    return labels, code


# --- running --------------------------------------------------------------------------------------


class Block:
    """One block of threads."""

    def __init__(self, kernel: Kernel, threads: int, special: dict, values: dict, memory: list):
        self.kernel, self.n = kernel, threads
        self.special, self.values, self.memory = special, values, memory
        self.places_by_name = dict(kernel.shared)
        for k, (parameter, raw) in enumerate(values.items()):
            self.places_by_name[parameter] = PARAMETERS * (k + 1)
            data = np.frombuffer(raw, np.uint8)
            memory.append(("param", PARAMETERS * (k + 1), data, False))
        self.registers: dict[str, np.ndarray] = {}
        self.pc = np.zeros(threads, int)
        self.done = np.zeros(threads, bool)
        self.at_barrier = np.zeros(threads, bool)
        self.at_collective = np.zeros(threads, bool)
        self.parked = np.zeros(threads, bool)  # until wake() or another thread lets them go on
        self.copies: list[tuple[np.ndarray, ...]] = []  # lanes, to, from, group
        self.group = np.zeros(threads, int)

    def run(self) -> None:
        """Until every thread has left."""
        while not self.done.all():
            ready = ~(self.done | self.at_barrier | self.at_collective | self.parked)
            if ready.any():
                self.step(ready)
            elif self.wake():
                continue
            elif (self.at_barrier | self.done).all():
                self.at_barrier[:] = False
            else:
                raise PtxError("deadlock: a collective waits for lanes that never come")

    def wake(self) -> bool:
        """Whether something happened that no thread did; see ptx_hopper.py."""
        return False

    def step(self, ready: np.ndarray) -> None:
        """One instruction for the threads that stand at the lowest program counter."""
        at = self.pc[ready].min()
        mask = ready & (self.pc == at)
        self.instruction = instruction = self.kernel.code[at]
        if instruction.parts[0] in ("shfl", "vote") or instruction.parts[:2] == ["bar", "warp"]:
            self.collective(at, mask)
            return
        self.pc[mask] += 1
        if instruction.guard:
            guard = self.predicate(instruction.guard.lstrip("!"))
            mask = mask & (guard ^ (instruction.guard[0] == "!"))
        op = instruction.parts[0]
        if op == "bra":
            self.pc[mask] = self.kernel.labels[instruction.args[0]]
        elif op in ("ret", "exit"):
            self.done |= mask
        elif op == "bar":
            self.at_barrier |= mask
        elif mask.any():
            self.execute(op, instruction.parts, instruction.args, mask)

    # operands: a register holds raw bits in uint64, a predicate holds booleans

    def get(self, name: str, kind: str) -> np.ndarray:
        dtype = TYPES[kind]
        if name in self.special:
            bits = np.broadcast_to(np.asarray(self.special[name], np.uint64), self.n)
        elif name.startswith("%"):
            bits = self.registers[name]
        elif name[:2] in ("0f", "0d"):
            bits = np.full(self.n, int(name[2:], 16), np.uint64)
        else:
            known = self.places_by_name.get(name)
            number = int(name, 0) if known is None else known
            bits = np.full(self.n, number & (2**64 - 1), np.uint64)
        return bits.astype(BITS[dtype.itemsize]).view(dtype)

    def predicate(self, name: str) -> np.ndarray:
        if name[0] == "%" or name in self.registers:
            return self.registers[name].astype(bool)
        return np.full(self.n, int(name, 0) != 0)

    def put(self, name: str, value: np.ndarray, mask: np.ndarray) -> None:
        if value.dtype != bool:
            value = np.ascontiguousarray(value).view(BITS[value.dtype.itemsize])
        value, old = value.astype(np.uint64), self.registers.get(name)
        self.registers[name] = value if old is None else np.where(mask, value, old)

    def address(self, text: str) -> np.ndarray:
        base, offset = re.match(r"\[([\w%$]+)(?:\+(-?\d+))?\]", text).groups()
        kind = "u64" if base.startswith("%rd") else "u32"
        return (self.get(base, kind).astype(np.int64) + int(offset or 0)).view(np.int64)

    # memory: every lane must stay within one array, and inputs are not written

    def places(self, space: str, address: np.ndarray, size: int, writes: bool):
        """(array, lanes, first bytes) for the lanes of each array that is met."""
        left = np.ones(len(address), bool)
        if (address % size).any():
            raise PtxError(f"misaligned: {self.instruction.name} of {size} bytes")
        for kind, begin, data, writable in self.memory:
            inside = (address >= begin) & (address + size <= begin + len(data)) & (kind == space)
            if inside.any():
                if writes and not writable:
                    raise PtxError(f"{self.instruction.name} writes an input")
                left &= ~inside
                yield data, inside, address[inside] - begin
        if left.any():
            raise PtxError(f"out of bounds: {self.instruction.name} {self.instruction.args}")

    def load(self, space: str, address: np.ndarray, size: int) -> np.ndarray:
        out = np.zeros((len(address), size), np.uint8)
        for data, lanes, first in self.places(space, address, size, False):
            out[lanes] = data[first[:, None] + np.arange(size)]
        return out

    def store(self, space: str, address: np.ndarray, raw: np.ndarray) -> None:
        for data, lanes, first in self.places(space, address, raw.shape[1], True):
            data[first[:, None] + np.arange(raw.shape[1])] = raw[lanes]

    # instructions

    def execute(self, op: str, parts: list[str], args: list[str], mask: np.ndarray) -> None:
        handler = getattr(self, f"op_{op}", None)
        if parts[-1] == "pred":
            self.put(args[0], LOGIC[op](*map(self.predicate, args[1:])), mask)
        elif handler:
            handler(parts, args, mask)
        elif op in ARITHMETIC and parts[-1] in TYPES:
            values = [self.get(arg, parts[-1]) for arg in args[1:]]
            self.put(args[0], quiet(ARITHMETIC[op])(*values).astype(values[0].dtype), mask)
        else:
            raise PtxError(f"opcode {'.'.join(parts)} is not known")

    def op_not(self, parts, args, mask):
        self.put(args[0], ~self.get(args[1], parts[-1]), mask)

    def op_cvta(self, parts, args, mask):
        self.put(args[0], self.get(args[1], "u64"), mask)

    def op_cvt(self, parts, args, mask):
        value = quiet(convert)(self.get(args[1], parts[-1]), TYPES[parts[-2]], parts[1])
        self.put(args[0], value, mask)

    def op_mul(self, parts, args, mask):
        x, y = (self.get(arg, parts[-1]) for arg in args[1:])
        if "wide" in parts:
            wide = TYPES[parts[-1][0] + str(2 * int(parts[-1][1:]))]
            x, y = x.astype(wide), y.astype(wide)
        self.put(args[0], quiet(np.multiply)(x, y), mask)

    def op_mad(self, parts, args, mask):
        x, y, z = (self.get(arg, parts[-1]) for arg in args[1:])
        self.put(args[0], quiet(lambda: x * y + z)(), mask)

    def op_fma(self, parts, args, mask):
        x, y, z = (self.get(arg, parts[-1])[mask] for arg in args[1:])
        out = np.zeros(self.n, TYPES[parts[-1]])
        out[mask] = exact.fma(x, y, z)
        self.put(args[0], out, mask)

    def op_shl(self, parts, args, mask):
        self.put(args[0], shift(self.get(args[1], parts[-1]), self.get(args[2], "u32"), True), mask)

    def op_shr(self, parts, args, mask):
        self.put(
            args[0], shift(self.get(args[1], parts[-1]), self.get(args[2], "u32"), False), mask
        )

    def op_setp(self, parts, args, mask):
        x, y = (self.get(arg, parts[-1]) for arg in args[1:3])
        self.put(args[0], quiet(compare)(parts[1], x, y), mask)

    def op_selp(self, parts, args, mask):
        x, y = (self.get(arg, parts[-1]) for arg in args[1:3])
        self.put(args[0], np.where(self.predicate(args[3]), x, y), mask)

    def op_bfi(self, parts, args, mask):
        at, width = self.get(args[3], "u32"), self.get(args[4], "u32")
        value = insert(self.get(args[1], parts[-1]), self.get(args[2], parts[-1]), at, width)
        self.put(args[0], value, mask)

    def op_mov(self, parts, args, mask):
        if args[0].startswith("{"):  # halves of a 64-bit register
            value = self.get(args[1], "u64")
            for k, name in enumerate(args[0].strip("{}").replace(",", " ").split()):
                half = (value >> np.uint64(32 * k)).astype(np.uint32)
                if name != "_":
                    self.put(name, half, mask)
        elif args[1].startswith("{"):
            low, high = (self.get(a, "u32") for a in args[1].strip("{}").replace(",", " ").split())
            self.put(args[0], low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32), mask)
        else:
            self.put(args[0], self.get(args[1], parts[-1]), mask)

    def op_ld(self, parts, args, mask):
        kind, names = parts[-1], args[0].strip("{}").replace(",", " ").split()
        size = TYPES[kind].itemsize
        if parts[1] == "param" and not args[1].startswith("[%"):
            name, offset = re.match(r"\[(\w+)(?:\+(\d+))?\]", args[1]).groups()
            raw = self.values[name][int(offset or 0) :][: size * len(names)]
            for register, number in zip(names, np.frombuffer(raw, TYPES[kind]), strict=True):
                self.put(register, extended(np.full(self.n, number)), mask)
            return
        raw = self.load(space_of(parts), self.address(args[1])[mask], size * len(names))
        for k, name in enumerate(names):
            value = np.zeros(self.n, TYPES[kind])
            part = np.ascontiguousarray(raw[:, k * size : (k + 1) * size])
            value[mask] = part.view(TYPES[kind])[:, 0]
            self.put(name, extended(value), mask)

    def op_st(self, parts, args, mask):
        names = args[1].strip("{}").replace(",", " ").split()
        raw = [self.get(name, parts[-1])[mask][:, None].view(np.uint8) for name in names]
        self.store(space_of(parts), self.address(args[0])[mask], np.concatenate(raw, 1))

    def op_cp(self, parts, args, mask):
        if "commit_group" in parts:
            self.group[mask] += 1
        elif "wait_group" in parts:
            self.land(mask, int(args[0]))
        else:
            if args[2] != "16":
                raise PtxError(f"cp.async of {args[2]} bytes")
            lanes = np.flatnonzero(mask)
            self.load("global", self.address(args[1])[mask], 16)  # bounds, at once
            to, source = self.address(args[0])[mask], self.address(args[1])[mask]
            self.copies.append((lanes, to, source, self.group[mask].copy()))

    def warps(self, mask: np.ndarray) -> np.ndarray:
        """Threads by warp, for what a warp does as one."""
        lanes = np.flatnonzero(mask).reshape(-1, 32)
        if (lanes[:, 0] % 32).any() or (lanes[:, -1] - lanes[:, 0] != 31).any():
            raise PtxError(f"{self.instruction.name} by a part of a warp")
        return lanes

    def op_ldmatrix(self, parts, args, mask):
        lanes, lane = self.warps(mask), np.arange(32)
        rows = self.load("shared", self.address(args[1])[mask], 16).reshape(-1, 32, 4, 4)
        for k, name in enumerate(args[0].strip("{}").replace(",", " ").split()):
            value = np.zeros(self.n, np.uint32)
            part = np.ascontiguousarray(rows[:, 8 * k + lane // 4, lane % 4])
            value[lanes] = part.view(np.uint32)[..., 0]
            self.put(name, value, mask)

    def op_mma(self, parts, args, mask):
        if parts[3:] != ["m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"]:
            raise PtxError(f"opcode {self.instruction.name} is not known")
        lanes, lane = self.warps(mask), np.arange(32)
        d, a, b, c = (arg.strip("{}").replace(",", " ").split() for arg in args)
        left, right = np.zeros((len(lanes), 16, 16)), np.zeros((len(lanes), 16, 8))
        for half in (0, 1):  # of a register: the even and the odd number
            column = lane % 4 * 2 + half
            for k, name in enumerate(a):
                left[:, lane // 4 + k % 2 * 8, column + k // 2 * 8] = self.bf16(name, lanes, half)
            for k, name in enumerate(b):
                right[:, column + k * 8, lane // 4] = self.bf16(name, lanes, half)
        product = quiet(np.matmul)(left, right)
        for k, (out, start) in enumerate(zip(d, c, strict=True)):
            value = np.zeros(self.n, np.float32)
            sums = product[:, lane // 4 + k // 2 * 8, lane % 4 * 2 + k % 2]
            value[lanes] = sums + self.get(start, "f32")[lanes]
            self.put(out, value, mask)

    def bf16(self, name: str, lanes: np.ndarray, half: int) -> np.ndarray:
        bits = self.get(name, "u32")[lanes]
        return (bits << np.uint32(16) if half == 0 else bits & np.uint32(0xFFFF0000)).view("f4")

    def land(self, mask: np.ndarray, newest_left: int) -> None:
        waiting = []
        for lanes, to, source, group in self.copies:
            now = mask[lanes] & (group < self.group[lanes] - newest_left)
            if now.any():
                self.store("shared", to[now], self.load("global", source[now], 16))
            if not now.all():
                waiting.append(tuple(a[~now] for a in (lanes, to, source, group)))
        self.copies = waiting

    def op_atom(self, parts, args, mask):
        kind, space = parts[-1], parts[1]
        combine = {"add": np.add, "max": np.maximum, "min": np.minimum}[parts[-2]]
        address, value = self.address(args[1]), self.get(args[2], kind)
        old = np.zeros(self.n, TYPES[kind])
        for lane in np.flatnonzero(mask):
            where = address[lane : lane + 1]
            old[lane] = self.load(space, where, TYPES[kind].itemsize).view(TYPES[kind])[0, 0]
            new = quiet(combine)(old[lane : lane + 1], value[lane : lane + 1])
            self.store(space, where, new[:, None].view(np.uint8))
        self.put(args[0], old, mask)

    op_red = op_atom

    def collective(self, at: int, mask: np.ndarray) -> None:
        """Runs for the lanes whose partners have all arrived; the others wait here."""
        instruction = self.instruction
        here = (mask | self.at_collective) & (self.pc == at)
        members = self.get(instruction.args[-1], "u32").astype(np.int64)
        arrived = (here.reshape(-1, 32) << np.arange(32)).sum(1).repeat(32)
        complete = here & ((arrived & members) == members)
        if (complete & ~(members >> np.arange(self.n) % 32 & 1).astype(bool)).any():
            raise PtxError(f"{instruction.name} names lanes without its own")
        self.at_collective = (self.at_collective | here) & ~complete
        self.pc[complete] += 1
        lanes = np.arange(self.n)
        if instruction.parts[0] == "bar":
            return
        if instruction.parts[0] == "vote":
            votes = self.predicate(instruction.args[1].lstrip("!"))
            votes = votes ^ instruction.args[1].startswith("!")
            ballot = (votes.reshape(-1, 32) << np.arange(32)).sum(1).repeat(32) & members
            any_of = "any" in instruction.parts
            self.put(instruction.args[0], ballot != 0 if any_of else ballot.astype("u4"), complete)
        else:
            how, by = instruction.parts[2], self.get(instruction.args[2], "u32").astype(int)
            clamp = self.get(instruction.args[3], "u32")  # a segment of 32 lanes
            if how not in ("bfly", "idx", "up") or (clamp != (0 if how == "up" else 31)).any():
                raise PtxError(f"opcode {instruction.name} is not known")
            first = lanes // 32 * 32
            source = lanes ^ by if how == "bfly" else first + by % 32
            if how == "up":
                source = np.where(lanes - by >= first, lanes - by, lanes)
            value = self.get(instruction.args[1], "u32")[source]
            self.put(instruction.args[0].split("|")[0], value, complete)


def space_of(parts: list[str]) -> str:
    """Of a load or store; ours mean global memory where they name none."""
    return parts[1] if parts[1] in ("shared", "param") else "global"


def _argument(value, kind: str, memory: list) -> bytes:
    """The bytes of one parameter; arrays become memory."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray | Written):
        array = value.array if isinstance(value, Written) else value
        data = array.reshape(-1).view(np.uint8)
        memory.append(("global", array.ctypes.data, data, isinstance(value, Written)))
        value = array.ctypes.data
    return np.array([value or 0]).astype(TYPES[kind]).tobytes()


def launch(
    kernel: Kernel,
    grid: tuple[int, ...],
    threads: int,
    args: list,
    dynamic: int = 0,
    touched: tuple[Written, ...] | list[Written] = (),
    runner: type[Block] = Block,
) -> None:
    """Runs every block of a grid, one after another.

    Args:
        kernel: of `kernel(ptx, name)`.
        grid: blocks in x, y.
        threads: of a block, in x; a multiple of 32.
        args: in order: numbers, None, bytes of a structure, arrays (inputs), `Written` arrays.
        dynamic: bytes of dynamic shared memory.
        touched: arrays whose addresses lie inside a structure of `args`.
        runner: what knows the opcodes.

    Raises:
        PtxError: out of bounds, misaligned, an input written, a deadlock, an unknown opcode.
    """
    memory: list = []
    for written in touched:
        _argument(written, "u64", memory)
    values = {
        name: _argument(value, kind, memory)
        for (name, kind, _), value in zip(kernel.params, args, strict=True)
    }
    size = kernel.shared[""] - SHARED + dynamic
    grid = (*grid, 1)[:2]
    for y in range(grid[1]):
        for x in range(grid[0]):
            special = {"%tid.x": np.arange(threads), "%ntid.x": threads}
            special |= {"%ctaid.x": x, "%ctaid.y": y, "%nctaid.x": grid[0], "%nctaid.y": grid[1]}
            shared = ("shared", SHARED, np.full(size, 0xFF, np.uint8), True)
            runner(kernel, threads, special, values, [shared, *memory]).run()

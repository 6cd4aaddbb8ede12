# SPDX-License-Identifier: Apache-2.0
"""What the machine code says without a card: resources, occupancy, and the bound of each hot loop.

Needs nvcc and nvdisasm (`pip install nvidia-cuda-nvdisasm`, 5 MB). The rates are those of the CUDA
programming guide's throughput table; the model knows no latencies, so it is a bound, as good as
occupancy lets the scheduler hide them. Prints the table of docs/cuda.md:

    PYTHONPATH=python_tests python -m emulation.sass_report [sm_90a ...]
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from emulation import nvcc
from emulation.emulator import OPS


@dataclass(frozen=True)
class Card:
    """Cycles of a warp instruction on one of the four schedulers of a multiprocessor."""

    name: str
    fma: int
    alu: int
    tensor: int  # of an m16n8k16 in bfloat16 with float32 sums
    shared_kib: int
    warps: int


CARDS = {
    "sm_80": Card("A100", 2, 2, 8, 164, 64),
    "sm_86": Card("RTX 3090", 1, 2, 32, 100, 48),
    "sm_89": Card("RTX 4090", 1, 2, 32, 100, 48),
    "sm_90a": Card("H100", 1, 2, 4, 228, 64),
    "sm_100": Card("B200", 1, 2, 4, 228, 64),
    "sm_120": Card("RTX 5090", 1, 2, 32, 100, 48),
}
REGISTERS = 65536
LDS_WAVEFRONT = 4  # the pipe to shared memory serves four schedulers in turn

FMA = re.compile(r"(FFMA|FMUL|FADD|IMAD|HFMA2)")
DOUBLE = re.compile(r"(DFMA|DADD|DMUL|DSETP)")
MEMORY = re.compile(r"(LD|ST|ATOM|RED|SHFL)")
UNIFORM = re.compile(  # other pipes: they cost an issue slot and nothing that bounds us
    r"(U[A-Z]+|R2UR|S2U?R|SYNCS|WARPGROUP|BRA|BAR|DEPBAR|NOP|EXIT|WARPSYNC|BSSY|BSYNC|MUFU|VOTE|POPC|[FI]2[FI]|CALL)"
)


HOT = ("FFMA", "HMMA", "HGMMA", "VOTE")  # what the loop is about that a kernel spends its time in

PIPES = {
    "tensor": re.compile("HG?MMA"),
    "fma": FMA,
    "double": DOUBLE,
    "memory": MEMORY,
    "uniform": UNIFORM,
}


@dataclass
class Resources:
    """What ptxas says of a kernel."""

    registers: int
    spills: int  # bytes stored and loaded
    stack: int
    shared: int


@dataclass
class Body:
    """A loop by its opcodes, how many of them are hot, and how many of those of loops inside it."""

    opcodes: list[str]
    hot: int
    hot_inside: int

    def is_around(self) -> bool:
        """Whether the hot loop is one inside it: unless that is the remainder of its own."""
        return self.hot < 8 * self.hot_inside


@dataclass
class Loop:
    """The hottest loop of a kernel, without the loops inside it, and its bound by pipe."""

    instructions: Counter
    cycles: dict[str, int]

    @property
    def bound(self) -> str:
        return max(self.cycles, key=self.cycles.get)

    @property
    def share(self) -> float:
        """Of the bound: cycles in which the fma pipe does FFMA."""
        return self.cycles["ffma"] / max(self.cycles[self.bound], 1)


@dataclass
class Kernel:
    """One kernel on one architecture."""

    name: str
    arch: str
    resources: Resources
    threads: int
    opcodes: set[str]
    calls: int
    loop: Loop | None

    @property
    def blocks(self) -> int:
        """Blocks that fit on a multiprocessor, without dynamic shared memory."""
        card, warps = CARDS[self.arch], self.threads // 32
        by_registers = REGISTERS // (-(-self.resources.registers // 8) * 8 * 32 * warps)
        by_shared = card.shared_kib * 1024 // (self.resources.shared + 1024)
        return min(by_registers, by_shared, card.warps // warps)


@dataclass(frozen=True)
class Bar:
    """What must hold on every architecture, beside no spills and no local memory."""

    opcodes: tuple[str, ...] = ()
    share: float = 0.0
    blocks: int = 1
    loop: int = 0  # instructions of the hot loop, at most; 0: any
    registers: int = 0  # of a thread, at most; 0: any
    calls: int | None = None  # of subroutines, at most: what divides 64 bits is one
    only: str = ""  # the one architecture for which the kernel has a body


WGMMA = ("HGMMA", "UBLKCP", "SYNCS", "FMNMX")  # warpgroups, bulk copies, byte-counting barriers
BARS = {
    "power_argmax_tile_kernel": Bar(("FFMA", "LDS", "LDGSTS", "FMNMX"), 0.85, 2),
    "power_argmax_winner_kernel": Bar(("FFMA", "VOTE")),
    "power_argmax_plain_kernel": Bar(("DFMA",)),
    "power_topk_maxima_kernel": Bar(("FFMA", "LDS", "LDGSTS", "FMNMX"), 0.85, 2),
    "power_topk_plain_maxima_kernel": Bar(("DFMA",), blocks=6),
    "power_topk_select_kernel<float>": Bar(("FFMA", "VOTE", "SHFL"), blocks=4),
    "power_topk_select_kernel<double>": Bar(("DFMA", "VOTE", "SHFL"), blocks=3),
    "cell_mass_shared_counts_kernel": Bar(("ATOMS",)),
    "cell_mass_counts_kernel": Bar(("RED",)),
    "cell_mass_sums_kernel<float, true>": Bar(("ATOMS",)),
    "cell_mass_sums_kernel<float, false>": Bar(("RED",)),
    "source_samples_panels_kernel": Bar(("FFMA", "IMAD")),
    "heights_adam_step_kernel<float>": Bar(("FFMA",)),
    "heights_adam_solve_step_kernel<float>": Bar(("BAR",), registers=36),
    "heights_adam_solve_step_kernel<double>": Bar(("BAR",), registers=40),
    "power_argmax_screen_kernel<32>": Bar(("HMMA", "LDSM", "LDGSTS", "FMNMX"), blocks=3, loop=250),
    "power_argmax_screen_kernel<64>": Bar(("HMMA", "LDSM", "LDGSTS", "FMNMX"), blocks=3, loop=294),
    "power_argmax_screen_kernel<128>": Bar(("HMMA", "LDSM", "LDGSTS", "FMNMX"), blocks=2, loop=440),
    "power_argmax_wgmma_kernel<32>": Bar(WGMMA, registers=72, loop=540, only="sm_90a"),
    "power_argmax_wgmma_kernel<64>": Bar(WGMMA, registers=80, loop=590, only="sm_90a"),
    "power_argmax_wgmma_kernel<128>": Bar(WGMMA, registers=96, loop=430, only="sm_90a"),
    "power_argmax_screen_select_kernel": Bar(("FFMA", "ATOMS")),
    "rans32_decode_kernel<uint8, direct>": Bar(("VOTE", "POPC", "LDS"), blocks=2, loop=66),
    "rans32_decode_kernel<uint8, shared>": Bar(("VOTE", "POPC", "LDS"), blocks=2, loop=78),
    "rans32_decode_kernel<uint8, global>": Bar(("VOTE", "POPC", "LDS"), blocks=2, loop=86),
    "rans32_encode_kernel<uint8>": Bar(("VOTE", "POPC"), blocks=2, loop=78),
    "rans32_offsets_kernel": Bar(("SHFL", "BAR")),
    "range64_encode_kernel": Bar(("STG", "IMAD"), blocks=16),
    "range64_decode_kernel<direct>": Bar(("LDG", "IMAD"), blocks=12, calls=4),  # of escapes
    "range64_decode_kernel<global>": Bar(("LDG", "IMAD"), blocks=12, calls=4),
    "range64_sums_kernel": Bar(("SHFL", "BAR")),
}


# --- reading --------------------------------------------------------------------------------------


def nvdisasm() -> str | None:
    """The tool on PATH, or from NVIDIA's wheel, or None."""
    if tool := shutil.which("nvdisasm"):
        return tool
    try:
        files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(f.locate()) for f in files if f.name == "nvdisasm"), None)


def short_name(mangled: str) -> str:
    """power_argmax_tile_kernel, cell_mass_sums_kernel<float, true>, ..."""
    # names with their lengths, one after another: the hash in an unnamed namespace has digits too
    rest = mangled.removeprefix("_ZN").removeprefix("_Z")
    while length := re.match(r"\d+", rest):
        rest = rest[length.end() :]
        name, rest = rest[: int(length[0])], rest[int(length[0]) :]
    arguments = re.match(r"(I[a-zA-Z0-9_]*E)?", rest)[1]
    if not arguments:
        return name
    if width := re.match(r"ILi(\d+)E", arguments):
        return f"{name}<{width[1]}>"
    kinds = {"f": "float", "d": "double", "h": "uint8", "s": "int16", "i": "int32", "l": "int64"}
    kind = kinds.get(arguments[1])
    if search := re.search(r"SearchE(\d)", rest):
        how = ("direct", "shared", "global")[int(search[1])]
        return f"{name}<{kind}, {how}>" if kind else f"{name}<{how}>"
    flag = {"Lb1": ", true", "Lb0": ", false"}.get(arguments[2:5], "")
    return f"{name}<{kind}{flag}>"


def resources(log: str) -> dict[str, Resources]:
    """By mangled name, from ptxas -v."""
    pattern = (
        r"entry function '(\w+)'.*\n(?:.*\n)?\s+(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads\n.*Used (\d+) registers(.*)"
    )
    found = {}
    for name, stack, stores, loads, registers, rest in re.findall(pattern, log):
        shared = re.search(r"(\d+) bytes smem", rest)
        spills = int(stores) + int(loads)
        smem = int(shared[1]) if shared else 0
        found[name] = Resources(int(registers), spills, int(stack), smem)
    return found


def disassemble(cubin: Path) -> dict[str, tuple[dict[str, int], list[tuple[str, str]]]]:
    """Mangled name -> labels and (opcode, operands)."""
    command = [nvdisasm(), "-c", str(cubin)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernels = {}
    for part in re.split(r"\n\.text\.", text)[1:]:
        labels: dict[str, int] = {}
        code: list[tuple[str, str]] = []
        for line in part.splitlines():
            if match := re.match(r"(\.L_\w+):", line):
                labels[match[1]] = len(code)
            elif match := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?(\S+)\s*(.*?) ?;", line):
                code.append((match[1], match[2]))
        kernels[part.split(":", 1)[0]] = labels, code
    return kernels


def loops(labels: dict[str, int], code: list[tuple[str, str]]) -> list[Body]:
    """Opcodes of each loop, without those of loops inside it; the spans of loops nest.

    A jump back from code far away, where a warp comes together again, makes no loop.
    """
    spans = set()
    for end, (op, operands) in enumerate(code):
        target = re.search(r"(\.L_\w+)\)", operands)
        if op.startswith("BRA") and target and labels.get(target[1], end + 1) < end:
            spans.add((labels[target[1]], end))
    spans = [(a, b) for a, b in spans if not any(c < a <= d < b for c, d in spans)]
    bodies = []
    for begin, end in spans:
        inner = [(a, b) for a, b in spans if (a, b) != (begin, end) and begin <= a and b <= end]
        own = [k for k in range(begin, end + 1) if not any(a <= k <= b for a, b in inner)]
        every = sum(op.startswith(HOT) for op, _ in code[begin : end + 1])
        mine = sum(code[k][0].startswith(HOT) for k in own)
        bodies.append(Body([code[k][0] for k in own], mine, every - mine))
    return bodies


def count_of(body: list[str], opcode: str) -> int:
    """How many instructions of a kind a loop has."""
    return sum(op.startswith(opcode) for op in body)


def bound(body: list[str], card: Card) -> Loop:
    """Cycles that one pass of the loop takes on each pipe, for one warp of one scheduler."""
    kinds = Counter()
    wavefronts = 0
    for op in body:
        kind = next((k for k, p in PIPES.items() if p.match(op)), "alu")
        kinds[kind] += 1
        if op.startswith(("LDS", "STS", "ATOMS")):
            wavefronts += 2 if ".128" in op else 1
    ffma = count_of(body, "FFMA")
    cycles = {
        "issue": len(body),
        "fma": kinds["fma"] * card.fma,
        "alu": kinds["alu"] * card.alu,
        "tensor": (kinds["tensor"] + 7 * count_of(body, "HGMMA")) * card.tensor,  # m64n64k16
        "shared": wavefronts * LDS_WAVEFRONT,
        "ffma": ffma * card.fma,
    }
    return Loop(Counter(op.split(".")[0] for op in body), cycles)


def kernels(name: str, arch: str, cache: Path) -> list[Kernel]:
    """Every kernel of one .cu file on one architecture."""
    cubin, log = nvcc.compile_to(name, arch, ".cubin", cache)
    threads = block_sizes(nvcc.compile_to(name, "sm_80", ".ptx", cache)[0].read_text())
    used = resources(log)
    found = []
    for mangled, (labels, code) in disassemble(cubin).items():
        bodies = loops(labels, code)
        hot = [b for b in bodies if not b.is_around()] or bodies
        hottest = max(hot, key=lambda b: (b.hot, len(b.opcodes)), default=None)
        loop = bound(hottest.opcodes, CARDS[arch]) if hottest else None
        opcodes = {op.split(".")[0] for op, _ in code}
        calls, short = sum(op.startswith("CALL") for op, _ in code), short_name(mangled)
        found.append(Kernel(short, arch, used[mangled], threads[short], opcodes, calls, loop))
    return sorted(found, key=lambda k: k.name)


def block_sizes(ptx: str) -> dict[str, int]:
    """Threads of a block by short name; the same on every architecture."""
    pattern = r"\.entry (\w+)\([^)]*\)\s*(?:\.maxntid (\d+))?"
    return {short_name(name): int(size or 32) for name, size in re.findall(pattern, ptx)}


# --- judging and printing -------------------------------------------------------------------------


def faults(kernel: Kernel) -> list[str]:
    """Which bars a kernel misses."""
    bar, found, used = BARS.get(kernel.name, Bar()), [], kernel.resources
    if bar.only not in ("", kernel.arch):
        bar = Bar()
    if used.spills or used.stack:
        found.append(f"{used.spills} bytes spilled, {used.stack} bytes of local memory")
    for opcode in bar.opcodes:
        if not any(op.startswith(opcode) for op in kernel.opcodes):
            found.append(f"no {opcode}")
    if bar.share and (kernel.loop is None or kernel.loop.share < bar.share):
        found.append(f"FFMA share of the bound under {bar.share}")
    if bar.loop and (kernel.loop is None or kernel.loop.cycles["issue"] > bar.loop):
        found.append(f"hot loop of over {bar.loop} instructions")
    if bar.registers and used.registers > bar.registers:
        found.append(f"{used.registers} registers, at most {bar.registers} wanted")
    if bar.calls is not None and kernel.calls > bar.calls:
        found.append(f"{kernel.calls} calls of subroutines, at most {bar.calls} wanted")
    if kernel.blocks < bar.blocks:
        found.append(f"{kernel.blocks} blocks a multiprocessor, wanted {bar.blocks}")
    return [f"{kernel.name} on {kernel.arch}: {fault}" for fault in found]


def table(rows: list[Kernel]) -> str:
    """Markdown."""
    lines = [
        "| kernel | arch | registers | shared | blocks | hot loop | bound | FFMA share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for k in rows:
        loop = ("-", "-", "-")
        if k.loop and k.loop.cycles["ffma"]:
            top = ", ".join(f"{n} {op}" for op, n in k.loop.instructions.most_common(3))
            total = k.loop.cycles["issue"]
            loop = (f"{total}: {top}", k.loop.bound, f"{k.loop.share:.2f}")
        used = (k.resources.registers, k.resources.shared, k.blocks)
        lines.append("| " + " | ".join(map(str, (k.name, k.arch, *used, *loop))) + " |")
    return "\n".join(lines)


def main(architectures: list[str]) -> int:
    """Prints the kernels with a hot loop of FFMA everywhere, all on H100; 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [k for arch in architectures for op in OPS for k in kernels(op, arch, Path(folder))]
    shown = [k for k in rows if k.arch == "sm_90a" or BARS.get(k.name, Bar()).share]
    sys.stdout.write(table(sorted(shown, key=lambda k: (k.name, k.arch))) + "\n")
    missed = [fault for k in rows for fault in faults(k)]
    sys.stderr.write("\n".join(missed) + "\n" if missed else "")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(CARDS)))

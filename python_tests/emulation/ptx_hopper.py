# SPDX-License-Identifier: Apache-2.0
"""What PTX of sm_90a needs beside ptx_runner.py: mbarriers, bulk copies, products of a warpgroup.

A bulk copy lands when no thread can go on, and sums are NaN from a product to its wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from emulation.ptx_arithmetic import PtxError, quiet
from emulation.ptx_runner import SHARED, Block

PRODUCT = "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16"
BULK = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"


@dataclass
class Mbarrier:
    arrivals: int
    pending: int
    bytes: int = 0
    phase: int = 0


class HopperBlock(Block):
    """A block that knows them: `launch(..., runner=HopperBlock)`."""

    def __init__(self, *given):
        super().__init__(*given)
        self.barriers: dict[int, Mbarrier] = {}
        self.flights: list[tuple[int, int, int, int]] = []  # to, from, bytes, barrier
        self.sums: dict[str, np.ndarray] = {}  # by register, until the wait

    def wake(self) -> bool:
        """Lands a copy, when nobody else can go on."""
        if not self.flights:
            return False
        to, source, count, address = self.flights.pop(0)
        for first in range(0, count, 16):
            self.store(
                "shared",
                np.array([to + first]),
                self.load("global", np.array([source + first]), 16),
            )
        self.barriers[address].bytes -= count
        self.settle(self.barriers[address])
        return True

    def settle(self, barrier: Mbarrier) -> None:
        if barrier.bytes < 0 or barrier.pending < 0:
            raise PtxError("an mbarrier meets more bytes or arrivals than it expects")
        if barrier.bytes == barrier.pending == 0:
            barrier.phase, barrier.pending = barrier.phase + 1, barrier.arrivals
            self.parked[:] = False

    def op_mbarrier(self, parts, args, mask):
        where = args[0] if parts[1] == "init" else args[1]
        addresses = self.address(where)
        last = self.get(args[-1], "u32") if args[-1] != where else np.zeros(self.n, int)
        for lane in np.flatnonzero(mask):
            address, number = int(addresses[lane]), int(last[lane])
            if parts[1] == "init":
                self.barriers[address] = Mbarrier(number, number)
                continue
            barrier = self.barriers[address]
            if parts[1] == "arrive":
                barrier.pending -= 1
                barrier.bytes += number if "expect_tx" in parts else 0
                self.settle(barrier)
            elif parts[1:3] == ["try_wait", "parity"]:
                done = barrier.phase % 2 != number
                self.put(args[0], np.full(self.n, done), np.arange(self.n) == lane)
                self.parked[lane] = not done
                self.pc[lane] -= not done  # to ask again
            else:
                raise PtxError(f"opcode {self.instruction.name} is not known")

    def op_fence(self, parts, args, mask):
        if parts[1:3] != ["proxy", "async"]:
            raise PtxError(f"opcode {self.instruction.name} is not known")

    def op_cp(self, parts, args, mask):
        if self.instruction.name != BULK:
            super().op_cp(parts, args, mask)
            return
        to, source, barrier = (self.address(args[k]) for k in (0, 1, 3))
        count = self.get(args[2], "u32")
        for lane in np.flatnonzero(mask):
            self.flights.append(tuple(int(a[lane]) for a in (to, source, count, barrier)))

    def op_wgmma(self, parts, args, mask):
        if parts[1] == "wait_group":
            if args != ["0"]:
                raise PtxError("only the wait for all products is known")
            for name, value in self.sums.items():
                self.put(name, value, mask)
            self.warps(mask)
        elif self.instruction.name == PRODUCT:
            self.multiply(args, self.warps(mask), mask)
        elif parts[1] not in ("fence", "commit_group"):
            raise PtxError(f"opcode {self.instruction.name} is not known")

    def multiply(self, args, lanes, mask):
        if args[3:] != ["1", "1", "1", "0"]:
            raise PtxError("only plain products that add to their sums are known")
        d, a = (arg.strip("{}").replace(",", " ").split() for arg in args[:2])
        lane, left = np.arange(32), np.zeros((len(lanes), 16, 16))
        for half in (0, 1):
            column = lane % 4 * 2 + half
            for k, name in enumerate(a):
                left[:, lane // 4 + k % 2 * 8, column + k // 2 * 8] = self.bf16(name, lanes, half)
        descriptors = self.get(args[2], "u64")[lanes]
        if (descriptors != descriptors[:, :1]).any():
            raise PtxError("lanes of a warp name different tiles")
        right = np.stack([self.tile(int(bits)) for bits in descriptors[:, 0]])
        product = quiet(np.matmul)(left, right.transpose(0, 2, 1))
        for k, name in enumerate(d):
            start = self.sums.get(name)
            value = self.get(name, "f32").copy() if start is None else start.copy()
            if start is not None:  # of other warps the product may be over
                fresh = ~np.isnan(self.get(name, "f32"))
                value[fresh] = self.get(name, "f32")[fresh]
            rows, columns = lane // 4 + k // 2 % 2 * 8, k // 4 * 8 + lane % 4 * 2 + k % 2
            value[lanes] = product[:, rows, columns] + value[lanes]
            self.sums[name] = value
            self.put(name, np.full(self.n, np.nan, np.float32), mask)

    def tile(self, bits: int) -> np.ndarray:
        """The numbers that a descriptor names, [64, 16]."""
        start, stride, swizzle = (bits & 0x3FFF) << 4, (bits >> 32 & 0x3FFF) << 4, bits >> 62
        if not swizzle:
            raise PtxError("only swizzled tiles are known")
        span = 256 >> swizzle
        row, chunk = np.arange(64)[:, None], np.arange(2)
        place = start + row // 8 * stride + row % 8 * span + 16 * chunk
        place = place ^ ((place >> 7 & (span // 16 - 1)) << 4)
        raw = self.load("shared", SHARED + place.ravel(), 16)
        return (raw.view(np.uint16).reshape(64, 16).astype("u4") << 16).view("f4")

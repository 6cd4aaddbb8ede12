# SPDX-License-Identifier: Apache-2.0
"""Kernels with one thing broken: a barrier, wait, bound, atomic or tie rule. All must be caught.

A rule is a pattern in one .cu file and what stands there instead; each place is a mutant.
"""

from __future__ import annotations

import functools
import os
import re
import resource
import signal
import subprocess
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import argmax_cases
import exact
import mass_cases
import numpy as np
from emulation.calls import (
    assert_same_bits,
    assert_same_state,
    emulated_cell_mass,
    emulated_power_argmax,
    emulated_samples,
    emulated_screen,
    emulated_solve,
    emulated_step,
)
from emulation.emulator import (
    CHECKED,
    OPS,
    ROOT,
    EmulationError,
    Emulator,
    build_checked,
    build_host,
    compile_command,
    link,
    source_of,
)

ENDLESS = 40_000_000  # accesses of one launch

BARRIERS = [(r"__syncthreads\(\);", ";")]
RULES: dict[str, list[tuple[str, str]]] = {
    "power_argmax": [
        *BARRIERS,
        (r"cp_async_wait<kStages - 2>\(\);", ";"),
        (r"kStages - 2>", "kStages - 1>"),
        (r"\n +cp_async_commit\(\);", "\n"),
        (r"row0 \+ r < n", "row0 + r <= n"),
        (r"d0 \+ lane < D", "d0 + lane <= D"),
        (r"d0 \+ d < D", "d0 + d <= D"),
        (r"i < N \? heights", "i <= N ? heights"),
        (r"k < left", "k <= left"),
        (r"panels_left > 0", "panels_left >= 0"),
        (r"next >= size", "next > size"),
        (r"y \+= size;", ";"),
        (r"stage == kStages - 1", "stage == kStages"),
        (r"D - d >= kDepth", "D - d >= 1"),
        (r"top > best\[r\]", "top >= best[r]"),
        (r"fmaxf\(m\[6\], m\[7\]\)", "m[6]"),
        (r"__fadd_rn\(sum\[c\], h.v\[c\]\)", "sum[c]"),
        (r"score \+ 0.0f", "score"),
        (r"~unsigned\(place\);", "unsigned(place);"),
        (r"__shfl_xor_sync\(~0u, key, step\)", "key"),
        (r"row < rows && key", "row <= rows && key"),
        (r"atomicMax\(&keys\[row\], key\)", "keys[row] = max(keys[row], key)"),
        (r"(?<=if \()row >= rows", "row > rows"),
        (r"(?<=if \()row >= \(limit", "row > (limit"),
        (r"limit \? \*limit : rows", "rows"),
        (r"kTile >= \*limit\)", "kTile > *limit)"),
        (r"i < N && \(key", "(key"),
        (r"\(key \? s == best : ", "(key ? true : "),
        (r"min\(i0 \+ k, last - 1\)", "(i0 + k)"),
        (r"atomicAdd\(&to.counts\[index\], PanelKey\(1\)\)", "++to.counts[index]"),
    ],
    "power_argmax_screen": [
        *BARRIERS,
        (r"kScreenStep = 0x1p-17f", "kScreenStep = 0x1p-19f"),
        (r"x.rest \* y.norm \+ ", ""),
        (r"\+ x_most \* y.rest", ""),
        (r"\+ y.height;", ";"),
        (r"most < kScreenMost", "true"),
        (r"cp_async_wait<kStages<W> - 2>\(\);", ";"),
        (r"kStages<W> - 2>", "kStages<W> - 1>"),
        (r"cp_async_wait<0>\(\);", ";"),
        (r"\n +cp_async_commit\(\);\n  }\n};", "\n  }\n};"),
        (r"stage == kStages<W> - 1", "stage == kStages<W>"),
        (r"row < to.n && d < D", "d < D"),
        (r"row < to.n && d < D", "row < to.n"),
        (r"row < to.n \?", "row <= to.n ?"),
        (r"row < to.padded; ", "row <= to.padded; "),
        (r"group >= groups\)", "group > groups)"),
        (r"if \(isnan\(sum\)\) most\[0\] = INFINITY;", ";"),
        (r"i < N \? heights", "i <= N ? heights"),
        (r"if \(i >= padded\)", "if (i > padded)"),
        (r"t < kGroup / 2", "t < kGroup / 4"),
        (r"left > 0\)", "left >= 0)"),
        (r"fmaxf\(sum\[m\]\[2 \* i\], sum\[m\]\[2 \* i \+ 1\]\)", "sum[m][2 * i]"),
        (r"fmaxf\(most, __shfl_xor_sync\(~0u, most, (1|2)\)\)", "most"),
        (r"lower = fmaxf\(lower, s.lower\[w\]\[lane\]\)", "lower = s.lower[0][lane]"),
        (r"\+ error < lower\) continue;", "< lower) continue;"),
        (r"if \(k < kCandidates\)", "if (k <= kCandidates)"),
        (r"count <= kCandidates;", "count <= kCandidates + 1;"),
        (r"atomicAdd\(&s.count\[lane\], 1\)", "s.count[lane]++"),
        (r"atomicAdd\(p.fallbacks, 1\)", "(*p.fallbacks)++"),
        (r"s > -INFINITY \?", "true ?"),
        (r"key > best\)", "s > value || best == 0)"),
        (r"first \+ r < screen.rows", "first + r <= screen.rows"),
        (r"k < \*count \?", "k <= *count ?"),
        (r"by_place.places = s.fallback_rows;", ";"),
    ],
    "power_topk": [
        (r"own \+= groups;", "own += groups - 1;"),
        (r"if \(row >= rows\) return;  // all lanes", "if (row > rows) return;"),
        (
            r"kPlainThreads \+ threadIdx.x;\n  if \(row >= rows\)",
            "kPlainThreads + threadIdx.x;\n  if (row > rows)",
        ),
        (r"group < groups; group \+= gridDim.y", "group <= groups; group += gridDim.y"),
        (
            r"from\[k\] = y \+ min\(group \* kGroup \+ k, N - 1\)",
            "from[k] = y + (group * kGroup + k)",
        ),
        (r"h\[min\(group \* kGroup \+ k, N - 1\)\]", "h[group * kGroup + k]"),
        (r"most = fmax\(most, (__dadd_rn.*)\);", r"most = \1;"),
        (
            r"__shfl_sync\(kAll, place < 32 \? (score|index)\[0\] : \1\[1\]",
            r"__shfl_sync(kAll, \1[0]",
        ),
        (r"32 \* slot >= k\)", "32 * slot > 0)"),
        (r"lane == 0 \? carry : above", "above"),
        (r"lane == 0 \? carry_index : above_index", "above_index"),
        (r"is_first = slot == 0 && lane == 0", "is_first = lane == 0"),
        (r"is_first \|\| ", ""),
        (r"stays = power_topk_before\(.*\);", "stays = score[slot] > s;"),
        (r"enters = is_first \|\| power_topk_before\(.*\);", "enters = is_first || above > s;"),
        (r"last_index = index_at\(k - 1\);", ";"),
        (r"score_at\(k - 1\)", "score_at(k - 2)"),
        (r"index_at\(k - 1\)", "index_at(k - 2)"),
        (r"some != 0; some &= some - 1", "some != 0; some = 0"),
        (r"group < groups \? maxima\[group\]", "group <= groups ? maxima[group]"),
        (r"best > list->last_score", "best > 2 * list->last_score"),
        (r"k < kEach; \+\+k\) list->offer", "k < kEach - 1; ++k) list->offer"),
        (r"most < list->last_score\)", "most <= list->last_score)"),
        (r"place < groups.k; place \+= 4", "place < groups.k - 4; place += 4"),
        (r"group >= 0 && i < N \?", "i < N ?"),
        (r"group >= 0 && i < N \?", "group >= 0 ?"),
        (r"list->index\[slot\] >= 0\)\);", "lane > 0));"),
        (r"begin < N && place < list->k; begin", "begin < N - 32 && place < list->k; begin"),
        (r"i < N \? pair.of\(x_row, i, D\) : T\(NAN\)", "pair.of(x_row, i, D)"),
        (r"s == -INFINITY\);", "!(s > -INFINITY));"),
        (r"place == 32 \* slot \+ lane\)", "place % 32 == lane)"),
        (r"place >= lists.written\) continue", "place > lists.written) continue"),
        (r"there \? best.score\[slot\] : T\(NAN\)", "best.score[slot]"),
        (r"if \(lane == 0\) \{\n    lists.gap", "{\n    lists.gap"),
        (r"score_at\(1\)", "score_at(2)"),
        (r"best.index\[0\] >= 0 \? power_gap", "true ? power_gap"),
    ],
    "cell_mass": [
        *BARRIERS,
        (r"b < B; b \+= step", "b <= B; b += step"),
        (r"i < N; i \+= kThreads", "i <= N; i += kThreads"),
        (r"i >= 0 && i < N\)", "i >= 0 && i <= N)"),
        (r"if \(i != -1\) ", ""),
        (r"if \(i < N\) mass", "if (i <= N) mass"),
        (r"atomicAdd\(&local\[i\], 1u\)", "++local[i]"),
        (r"atomicAdd\(&mass\[i\], Word\(1\)\)", "++mass[i]"),
        (r"atomicAdd\(&mass\[i\], Word\(local\[i\]\)\)", "mass[i] += local[i]"),
        (
            r"atomicAdd\(shared \? &local\[i\] : &sums\[i\], (.*?)\);",
            r"(shared ? local : sums)[i] += \1;",
        ),
        (r"atomicAdd\(&sums\[i\], local\[i\]\)", "sums[i] += local[i]"),
        (r"atomicMax\(largest, most\)", "*largest = max(*largest, most)"),
        (r"most = max\(most, __shfl_xor_sync\(~0u, most, d\)\)", ";"),
        (r"\|\| !finite", ""),
    ],
    "source_samples": [
        (r"k >= 0 && ", ""),
        (r"k < count\)", "k <= count)"),
        (r"d0 \+ w >= D", "d0 + w > D"),
        (r"bits = philox\(sequence.seed, stream, k / kDraw\);", ";"),
        (r"uint64_t\(\*sequence.base\)", "0"),
    ],
    "heights_adam_step": [(r"i < N\)", "i <= N)")],
    "heights_adam_solve": [
        *BARRIERS,
        (r"i < N\) \{", "i <= N) {"),
        (r"i < N && is_finite", "i <= N && is_finite"),
        (r"i >= N \|\|", "i > N ||"),
        (r"if \(i >= N\) return;", "if (i > N) return;"),
        (r"if \(threadIdx.x == 0\) computed", "if (threadIdx.x < 2) computed"),
        (r"counts\[i\] = 0;", ";"),
        (r"k \* kCellBlock < N", "k * kCellBlock <= N"),
        (r"k >= rows\)", "k > rows)"),
        (r"put_height\(state.packed, i, float\(state.h\[i\]\)\);", ";"),
        (r"\*base \+ plus", "plus"),
        (r"(double\[2\]\);\n  )if \(!step.centres\(\)\) return;", r"\1;"),
        (r"a.device_step == nullptr \|\| done == 0", "true"),
    ],
    "range64": [
        (r"= sum;\n  __syncthreads\(\);", "= sum;"),  # the second one is for rans32
        (r"lane >= d\) sum", "lane > d) sum"),
        (r"w < warp\)", "w <= warp)"),
        (r"= begin <= end &&", "="),
        (r"&& end <= total;", ";"),
        (r"whole \|\| k", "k"),
        (r"k \+ 1 < job.count \|\| ", "k + 1 <= job.count || "),
        (r"atomicMin\(job.wrong, Word\(k\)\);", ";"),
        (r"atomicMin\(&job.faults\[(\d)\], (.*)\);", r"job.faults[\1] = \2;"),
        (r"job.bits / 32", "(job.bits - 4) / 32"),
        (r"\+ kSlotWords \* k;", ";"),
        (r"kSlotWords = 1;", "kSlotWords = 0;"),
        (r"slot.length \+= 4;", "slot.length += 3;"),
        (r"word >> 8 & 0xff00", "word >> 8 & 0xff"),
        (r"i < end; \+\+i", "i <= end; ++i"),
        (r"offset >= 0 && offset < n;", "offset < n;"),
        (r"offset >= 0 && offset < n;", "offset >= 0 && offset <= n;"),
        (r"symbol != int32_t\(symbol\) \|\| ", ""),
        (r" \|\| !\(has_place \|\| tables.escape\)", ""),
        (r"if \(interval.escaped\) ", ""),
        (r"if \(k >= job.count\) return;", ";"),
        (r"k >= job.count \|\| ", ""),
        (r"\*job.wrong == ~Word\(0\) \?", "true ?"),
        (r" \|\| \*job.wrong != ~Word\(0\)", ""),
        (r"k < count \? sums\[k\] : 0", "k <= count ? sums[k] : 0"),
        (r"if \(k < count\) sums", "if (k <= count) sums"),
        (r"k < blocks \? totals", "k <= blocks ? totals"),
        (r"if \(k < blocks\) totals", "if (k <= blocks) totals"),
        (r"sum.upto - own;", "sum.upto;"),
        (r"k % kScanThreads == 0 \? 0 : ", ""),
        (r"k % kScanThreads == 0 \? 0 : job.sums\[k - 1\]", "k == 0 ? 0 : job.sums[k - 1]"),
        (r"base = job.totals\[k / kScanThreads\]", "base = job.totals[0]"),
        (r"i < upto - before", "i <= upto - before"),
        (r"value >= 0 && value < 256", "value < 256"),
        (r"value >= 0 && value < 256", "value >= 0"),
        (r"slot == escape_slot\)", "false)"),
        (r"decoder.take\(slot, 1, P\);", ";"),
        (r">> 16 != 0;\n", ">> 16 == 7;\n"),
        (r"decoder.corrupt\(\)\)", "false)"),
        (r"!decoder.finished\(\)", "false"),
        (r"table < count\) return", "table <= count) return"),
        (r"table >= 0 && ", ""),
        (r"job.capacity, false,", "job.capacity + 1, false,"),
        (r"code_ >= r << P", "code_ > r << P"),
        (r"if \(product > code_\) return found - 1;", ";"),
        (r"code_ - product >= r \? found \+ 1 : found", "found"),
        (r"code_ - product >= r \?", "code_ - product > r ?"),
    ],
    "rans32": [
        *BARRIERS,
        (r"__syncwarp\(\);", ";"),
        (r"lane >= d\) sum", "lane > d) sum"),
        (r"w < warp\)", "w <= warp)"),
        (r"carry \+= sum.all;", ";"),
        (r"k < count\s+\? rans_padded", "k <= count ? rans_padded"),
        (r"lane_of\(\) < left", "lane_of() <= left"),
        (r"ballot & lanes_below\(\)", "ballot"),
        (r"% \(2 \* kWindow\);", "% kWindow;"),
        (r"taken >= limit", "taken >= limit + kWindow"),
        (r"limit - kWindow\)", "limit)"),
        (r"limit \+= kWindow;", ";"),
        (r"taken \+= __popc\(ballot\);", ";"),
        (r"if \(inside\) s.x = rans_pop", "s.x = rans_pop"),
        (r"if \(inside\) \{", "{"),
        (r"s.length - 64", "s.length - 32"),
        (r"slot == escape_slot \|\| ", ""),
        (r"\|\| \(!kOne && table >= count\)", ""),
        (r"if \(fits\) decode", "decode"),
        (r"symbols \+= 32;", ";"),
        (r"\(index \+= 32\)", "index"),
        (r"uint64_t\(int64_t\(table\)\) >> 32 == 0", "true"),
        (r"__ffs\(int\(escaped\)\) - 1", "31 - __clz(int(escaped))"),
        (r"next \+= bytes;", ";"),
        (r"good && offset >= 0 && offset < tables.symbols", "good"),
        (r"bytes > room \|\| padded > room", "bytes > room"),
        (r"bytes > room \|\| padded > room", "padded > room && false"),
        (r"min\(\*job.size, job.capacity\)", "*job.size"),
        (r"s.x < kRansLow\) note_fault", "false) note_fault"),
        (r"bytes \+ lane < padded &&", "false &&"),
        (r"inside = i < s.length", "inside = i <= s.length"),
        (r"s.side.next != s.side.end\)", "false)"),
        (r"taken > int64_t\(words\)", "taken > int64_t(words) + 9"),
        (r"s.reader.taken < int64_t\(words\)", "false"),
        (r"check != job.directory\[3 \* k \+ 2\]", "false"),
        (r"job.offsets\[job.count\] != \*job.size", "false"),
        (r"table < count\) return", "table <= count) return"),
        (r"table >= 0 && ", ""),
        (r"atomicMin\(&job.faults\[(\d)\], (.*)\);", r"job.faults[\1] = \2;"),
        (r"i < words; i \+= int", "i <= words; i += int"),
        (r"k < job.count; k", "k <= job.count; k"),
    ],
    "rans32_encode": [
        (r"31 - __clz\(int\(escaped\)\)", "__ffs(int(escaped)) - 1"),
        (r"ballot & lanes_below\(\)", "ballot"),
        (r"words -= __popc\(ballot\);", ";"),
        (r"(full = |\(kAll, )inside && ", r"\1"),
        (r"inside = i < s.length", "inside = i <= s.length"),
        (r"if \(inside\) (x|s.check)", r"\1"),
        (r"offset < tables.symbols;", "offset <= tables.symbols;"),
        (r"\(wide != int32_t\(symbol\) \|\| ", "("),
        (r"offset < alphabet", "offset <= alphabet"),
        (r"&& \(kOne \|\| table < count\)", ""),
        (r"= fits && ", "= "),
        (r"if \(__any_sync\(kAll, word >> 16 == 0\)\) break;", ";"),
        (r"(index|symbols) -= 32;", ";"),
        (r"lane_of\(\) < side.length", "lane_of() <= side.length"),
        (r"bytes \+ lane < rans_padded", "false && bytes + lane < rans_padded"),
        (r"i < (words|side);", r"i <= \1;"),
        (r"k < job.count; k", "k <= job.count; k"),
    ],
}


SHARED = (  # the first file that includes them has them
    "cuda/range64.h",
    "common/range64_symbols.h",
    "common/range64.h",
    "cuda/power_argmax_tile.cuh",
    "cuda/power_argmax_chain.cuh",
    "common/power_argmax_screen.h",
    "cuda/rans32_job.cuh",
    "cuda/coder.cuh",
)


def text_of(op: str) -> str:
    """The source of an op, what it shares with others written out in it."""
    text = source_of(op).read_text()
    for name in SHARED:
        shared = (ROOT / "csrc" / name).read_text().replace("#pragma once", "")
        include = f'#include "{name}"\n'
        text = text.replace(include, shared, 1).replace(include, "")
    return text


@dataclass(frozen=True)
class Mutant:
    """One place of one file, changed."""

    op: str
    begin: int
    end: int
    replacement: str

    @property
    def name(self) -> str:
        """File, line, and what stood there."""
        text = text_of(self.op)
        line = text.count("\n", 0, self.begin) + 1
        was = " ".join(text[self.begin : self.end].split())
        return f"{self.op}.cu:{line}: {was} -> {self.replacement.strip() or 'nothing'}"


def mutants() -> list[Mutant]:
    """Every place of every rule; a rule without a place is an error."""
    found = []
    for op, rules in RULES.items():
        text = text_of(op)
        for pattern, replacement in rules:
            places = list(re.finditer(pattern, text))
            if not places:
                raise ValueError(f"nothing in {op}.cu matches {pattern}")
            found += [Mutant(op, m.start(), m.end(), m.expand(replacement)) for m in places]
    return found


class Objects:
    """Mutants compiled, each while the one before it in `queue` is judged."""

    def __init__(self, queue: list[Mutant], folder: Path):
        self.queue, self.folder = queue, folder
        self._running: dict[Mutant, tuple[subprocess.Popen, Path]] = {}

    def _start(self, mutant: Mutant) -> None:
        folder = self.folder / f"{mutant.op}.{mutant.begin}.{zlib.crc32(mutant.name.encode())}"
        folder.mkdir()
        text, source, out = text_of(mutant.op), folder / f"{mutant.op}.cu", folder / "changed.o"
        source.write_text(text[: mutant.begin] + mutant.replacement + text[mutant.end :])
        command = compile_command(source, out, [*CHECKED, "-Wno-error"])
        with (folder / "said.txt").open("w") as log:
            self._running[mutant] = subprocess.Popen(command, stderr=log), out

    def take(self, mutant: Mutant) -> Path:
        """The object of one mutant, for the caller to delete."""
        if mutant not in self._running:
            self._start(mutant)
        process, out = self._running.pop(mutant)
        place = self.queue.index(mutant)
        for following in self.queue[place + 1 : place + 2]:
            if following not in self._running:
                self._start(following)
        if process.wait():
            said = (out.parent / "said.txt").read_text()
            raise RuntimeError(f"g++ could not compile {mutant.name}:\n{said[-4000:]}")
        return out

    def close(self) -> None:
        """Ends what nobody waits for."""
        for process, _ in self._running.values():
            process.kill()
            process.wait()


def build_mutant(mutant: Mutant, cache: Path, changed: Path) -> Emulator:
    """The library with one object changed; everything else comes from the cache."""
    others = [build_checked(op, cache) for op in (*OPS, "planted") if op != mutant.op]
    return Emulator(link([*build_host(cache), changed, *others], changed.with_name("mutant.so")))


# --- what each op must get right ------------------------------------------------------------------


@functools.cache
def argmax_problems() -> list[tuple]:
    """(x, y, h, value, index): ties, NaN, dead cells, cut slices, several panels a block."""
    names = ["many duplicates", "not numbers", "dead behind nan", "nothing but nan", "signed zeros"]
    problems = [argmax_cases.hard_case(name) for name in names]
    for name in names:
        x, y, h = argmax_cases.hard_case(name, "f8")
        problems.append((x[:30], y, h))
    problems += [
        argmax_cases.base(shape) for shape in [(1030, 270, 19), (1030, 140, 16), (9, 300, 37)]
    ]
    return [(*problem, *exact.power_argmax(*problem)) for problem in problems]


def check_power_argmax(emulator: Emulator) -> None:
    """On one processor, so that more than 1024 samples make each block see all panels."""
    for k, (x, y, h, *want) in enumerate(argmax_problems()):
        settings = {"processors": 1, "seed": k, "most_accesses": ENDLESS}
        assert_same_bits(emulated_power_argmax(emulator, x, y, h, **settings), want)
    check_heights_adam_solve(emulator)  # counts
    check_limits(emulator)


def check_limits(emulator: Emulator) -> None:
    """The screen leaves 128 of 200 samples, one of two panels, to the tile kernel."""
    from emulation import screen_cases

    x, y, h = screen_cases.far_apart(200, 64, 20)
    x[:128, 3] = np.inf
    got, fallbacks = emulated_screen(emulator, x, y, h, processors=1, most_accesses=ENDLESS)
    assert_same_bits(got, exact.power_argmax(x, y, h))
    assert fallbacks == 128


def check_power_argmax_screen(emulator: Emulator) -> None:
    """Certain winners, uncertain ones, numbers that are none, and sums as far off as allowed."""
    from emulation import screen_cases

    wrong = len(list(screen_cases.wrong_sums()))
    for k, (x, y, h) in enumerate(screen_cases.problems()):
        want = exact.power_argmax(x, y, h)
        for mma_error in (0, 1, -1, 2, 3) if k < wrong else (0,):
            settings = {"processors": 1, "seed": k + 1, "most_accesses": ENDLESS}
            got, _ = emulated_screen(emulator, x, y, h, mma_error=mma_error, **settings)
            assert_same_bits(got, want)
    for x, y, h in screen_cases.certain():
        got, fallbacks = emulated_screen(emulator, x, y, h, processors=1, most_accesses=ENDLESS)
        assert_same_bits(got, exact.power_argmax(x, y, h))
        assert fallbacks == 0


def check_power_topk(emulator: Emulator) -> None:
    """Ties, NaN, dead cells, lists longer than a warp, whole panels and parts of them."""
    from emulation import topk_cases

    for k, (x, y, h, places) in enumerate(topk_cases.problems()):
        settings = {"processors": 1, "seed": k, "most_accesses": ENDLESS}
        topk_cases.check(emulator, x, y, h, places, **settings)


def check_cell_mass(emulator: Emulator) -> None:
    """Counts and sums, few cells and many, with faults among the samples."""
    for name in mass_cases.CASES:
        index, N, weights = mass_cases.case(name)
        settings = {"processors": 3, "most_accesses": ENDLESS}
        mass, *faults = emulated_cell_mass(emulator, index, N, weights, **settings)
        assert mass.tobytes() == exact.cell_mass(index, N, weights).tobytes()
        assert faults == [-1, -1]
    index, weights = np.arange(700) % 9, np.ones(700, "f4")
    index[500], weights[600] = 9, np.inf
    mass, *faults = emulated_cell_mass(emulator, index, 9, weights)
    kept = (index < 9) & np.isfinite(weights)
    assert (mass == np.bincount(index[kept], minlength=9)).all()
    assert faults == [500, 600]


def check_source_samples(emulator: Emulator) -> None:
    """Rows, and panels by way of a solve."""
    import otcuda

    part = {"seed": 1, "stream": 2, "offset": 3}
    want = otcuda.source_samples(np.empty((33, 5), "f4"), "uniform", **part)
    got = emulated_samples(emulator, 33, 5, "f4", "uniform", **part)
    assert got.tobytes() == want.tobytes()
    check_heights_adam_solve(emulator)


def check_heights_adam_step(emulator: Emulator) -> None:
    """One step of 300 cells."""
    import otcuda

    h, m, v, mass, nu = np.abs(np.random.default_rng(0).normal(size=(5, 300))).astype("f4")
    got = emulated_step(emulator, h, m, v, mass, nu, 3, lr=0.03)
    otcuda.heights_adam_step(h, m, v, mass, nu, 3, lr=0.03)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in (h, m, v)]


def check_heights_adam_solve(emulator: Emulator) -> None:
    """Steps around the centring one; 1024 cells are a whole block, 1100 are not."""
    import otcuda

    for N, D, start in [(1024, 1, 255), (1100, 3, 254), (7, 5, 0)]:
        rng = np.random.default_rng(N)
        y, nu = rng.normal(size=(N, D)).astype("f4"), rng.dirichlet(np.ones(N)).astype("f4")
        h = (rng.normal(size=N) + 1e6).astype("f4")  # coarse until it is centred
        states = [otcuda.HeightsState(h.copy(), 0 * nu, 0 * nu, start) for _ in range(3)]
        states[2].step = np.array([start])  # counted on the device
        settings = {"iterations": 3, "batch": 150, "lr": 0.1, "seed": 1}
        _, want = otcuda.heights_adam_solve(y, nu, "normal", state=states[0], **settings)
        for state in states[1:]:
            chi2 = emulated_solve(
                emulator, y, nu, state, "normal", most_accesses=ENDLESS, **settings
            )
            assert_same_state(state, states[0])
            assert chi2.tobytes() == want.tobytes()


def check_rans32(emulator: Emulator) -> None:
    """Both ways at every border, and damage by name."""
    from emulation.rans_cases import check_borders, check_names_of_damage

    check_borders(emulator, most_accesses=ENDLESS)
    check_names_of_damage(emulator)


def check_range64(emulator: Emulator) -> None:
    """Both ways at every border, strays, and damage by name."""
    from emulation.range_cases import check_borders, check_damage, check_strays

    check_borders(emulator, most_accesses=ENDLESS)
    check_strays(emulator)
    check_damage(emulator)


CHECKS: dict[str, Callable[[Emulator], None]] = {
    "power_argmax": check_power_argmax,
    "power_argmax_screen": check_power_argmax_screen,
    "power_topk": check_power_topk,
    "cell_mass": check_cell_mass,
    "source_samples": check_source_samples,
    "heights_adam_step": check_heights_adam_step,
    "heights_adam_solve": check_heights_adam_solve,
    "range64": check_range64,
    "rans32": check_rans32,
    "rans32_encode": check_rans32,
}


def verdict(mutant: Mutant, cache: Path, changed: Path) -> str | None:
    """What caught it, or None: it survived. A mutant may bring down its process, so it has one."""
    emulator = build_mutant(mutant, cache, changed)
    told, tell, child = *os.pipe(), os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # whatever else bounds its loops
        try:
            os.write(tell, (_caught(mutant, emulator) or "").encode()[:4096])
        except BaseException:
            os.write(tell, b"!" + traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return f"the processor: {signal.Signals(-status).name}"
    if said.startswith("!"):
        raise RuntimeError(said[1:])
    return said or None


def _caught(mutant: Mutant, emulator: Emulator) -> str | None:
    try:
        CHECKS[mutant.op](emulator)
    except EmulationError as error:
        return f"the emulator: {error}"
    except AssertionError:
        return "other bits"
    return None

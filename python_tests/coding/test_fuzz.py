# SPDX-License-Identifier: Apache-2.0
"""The mutation harnesses tools/fuzz/*.cpp under sanitizers."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
ONLY_BY = {
    "rans32": {"vbmi2": [*LEVELS["avx512"], "-mavx512vbmi", "-mavx512vbmi2"]},
    "causal_prior": {"avx2": LEVELS["avx2"], "vnni": [*LEVELS["avx512"], "-mavx512vnni"]},
}
COMMON = ("alloc", "backend_info", "check", "simd", "threads")
CODERS = ("tables", "symbol_runs", "range64", "range64_many", "range64_rows", "rans32")
MODELS = ("rans32_tree", "adaptive", "causal_prior", "causal_prior_portable", "compat64")
BY_LEVEL = ("symbol_runs", "rans32")
TARGETS = ("any_bytes", "encoders", "models")  # of libFuzzer; the others mutate what they write
SOURCES = [
    *(f"csrc/common/{name}.cpp" for name in COMMON),
    *(f"csrc/cpu/{name}.cpp" for name in CODERS + MODELS),
    *(f"csrc/cpu/{name}_portable.cpp" for name in BY_LEVEL),
]
SANITIZE = ["-O2", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree"),
]


def compiled(compiler: str, folder: Path, *more: str) -> tuple[list[str], list[Path]]:
    """Flags, and the objects of the core without Python."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    flags = ["-std=c++17", *SANITIZE, f"-DOTCUDA_X86_LEVELS={int(x86)}", "-Icsrc", "-pthread"]
    sources = [(source, []) for source in SOURCES]
    for level, extra in LEVELS.items() if x86 else ():
        sources += [(f"csrc/cpu/{name}_{level}.cpp", extra) for name in BY_LEVEL]
    for name, levels in ONLY_BY.items() if x86 else ():
        sources += [(f"csrc/cpu/{name}_{level}.cpp", extra) for level, extra in levels.items()]
    made = []
    for source, extra in sources:
        made.append(folder / f"{Path(source).stem}.o")
        command = [compiler, *flags, *more, *extra, "-c", source, "-o", made[-1]]
        subprocess.run(command, cwd=ROOT, check=True)
    return flags, made


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Compiled once for all harnesses."""
    return compiled(COMPILER, tmp_path_factory.mktemp("fuzz"))


def build(objects, folder: Path, name: str, *extra: str) -> Path:
    flags, made = objects
    program = folder / f"fuzz_{name}"
    command = [COMPILER, *flags, *extra, f"tools/fuzz/{name}.cpp", *made, "-o", program]
    subprocess.run(command, cwd=ROOT, check=True)
    return program


def test_mutations_under_address_and_undefined_behaviour_sanitizers(objects, tmp_path):
    program = build(objects, tmp_path, "range64")
    for seed in ("1", "2"):
        run = subprocess.run([program, "1500", seed], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        found = re.match(r"1500 cases, (\d+) tables refused, nothing found", run.stdout)
        assert 50 < int(found[1]) < 600, "most tables are good, some are not"


def test_mutated_blocks_under_sanitizers(objects, tmp_path):
    program = build(objects, tmp_path, "rans32")
    for seed in ("1", "2"):
        run = subprocess.run([program, "1200", seed], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        found = re.match(r"1200 cases, (\d+) noticed, (\d+) missed", run.stdout)
        assert int(found[1]) > 5000, "most damage is seen"
        assert found[2] == "0", "wrong symbols were taken for good"


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_under_sanitizers(objects, target, tmp_path):
    program = build(objects, tmp_path, target, "-DOTCUDA_FUZZ_MAIN")
    run = subprocess.run([program, "8000", "1"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == "8000 runs, nothing found\n"


@pytest.fixture(scope="module")
def clang_objects(tmp_path_factory):
    """Compiled by a clang++ that has libFuzzer."""
    clang, folder = shutil.which("clang++"), tmp_path_factory.mktemp("libfuzzer")
    if clang is None:
        pytest.skip("needs clang++")
    empty = folder / "empty.cpp"
    empty.write_text(
        "#include <cstddef>\n#include <cstdint>\n"
        'extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }\n'
    )
    probe = [clang, "-fsanitize=fuzzer", empty, "-o", folder / "empty"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("needs the runtime of libFuzzer")
    flags, made = compiled(clang, folder, "-fsanitize=fuzzer-no-link")
    return clang, [*flags, "-fsanitize=fuzzer"], made


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_under_libfuzzer(clang_objects, target, tmp_path):
    clang, flags, made = clang_objects
    program = tmp_path / target
    command = [clang, *flags, f"tools/fuzz/{target}.cpp", *made, "-o", program]
    subprocess.run(command, cwd=ROOT, check=True)
    limits = ["-max_total_time=20", "-max_len=600", "-seed=1", "-print_final_stats=1"]
    run = subprocess.run([program, *limits], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]

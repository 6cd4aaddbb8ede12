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
ONLY_BY = {"rans32": {"vbmi2": [*LEVELS["avx512"], "-mavx512vbmi", "-mavx512vbmi2"]}}
COMMON = ("alloc", "backend_info", "check", "simd", "threads")
CODERS = ("tables", "symbol_runs", "range64", "rans32", "rans32_tree")
BY_LEVEL = ("symbol_runs", "rans32")
SOURCES = [
    *(f"csrc/common/{name}.cpp" for name in COMMON),
    *(f"csrc/cpu/{name}.cpp" for name in CODERS),
    *(f"csrc/cpu/{name}_portable.cpp" for name in BY_LEVEL),
]
SANITIZE = ["-O2", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree"),
]


def compiled(compiler: str, folder: Path) -> tuple[list[str], list[Path]]:
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
        command = [compiler, *flags, *extra, "-c", source, "-o", made[-1]]
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


def test_any_bytes_under_sanitizers(objects, tmp_path):
    program = build(objects, tmp_path, "any_bytes", "-DOTCUDA_FUZZ_MAIN")
    run = subprocess.run([program, "20000", "1"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == "20000 runs, nothing found\n"


def test_any_bytes_under_libfuzzer(tmp_path):
    clang = shutil.which("clang++")
    if clang is None:
        pytest.skip("needs clang++")
    empty, program = tmp_path / "empty.cpp", tmp_path / "any_bytes"
    empty.write_text(
        "#include <cstddef>\n#include <cstdint>\n"
        'extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }\n'
    )
    probe = [clang, "-fsanitize=fuzzer", empty, "-o", tmp_path / "empty"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("needs the runtime of libFuzzer")
    flags, made = compiled(clang, tmp_path)
    command = [clang, *flags, "-fsanitize=fuzzer", "tools/fuzz/any_bytes.cpp", *made]
    subprocess.run([*command, "-o", program], cwd=ROOT, check=True)
    run = subprocess.run([program, "-runs=50000", "-max_len=400"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]

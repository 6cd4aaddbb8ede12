# SPDX-License-Identifier: Apache-2.0
"""The house: an op has its files, arrows point one way, files stay small, nothing names a machine.

Each check takes texts, so that the last tests can show it a fault and see it found.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES, FUNCTION_LINES, PARAMETERS = 600, 60, 8
SOURCES = {".py", ".h", ".cpp", ".cu", ".cuh", ".cmake", ".sh"}
TEXTS = SOURCES | {".md", ".toml", ".yaml", ".json", ".txt", ".jsonl"}
LEVELS = ("portable", "avx2", "avx512", "vbmi2", "vnni", "bf16")

# What a folder of csrc may include, itself aside.
ARROWS = {
    "common": set(),
    "cpu": {"common"},
    "cuda": {"common"},
    "bindings": {"common", "cpu", "cuda"},
}
# The only system headers in files that are compiled with the flags of an instruction set.
PLAIN_HEADERS = {"cstdint", "stdint.h", "immintrin.h"}
SKIPPED = {".git", "build", "dist", "__pycache__", "results", ".venv", "otcuda-demo", "runs"}


def files(*suffixes: str, below: str = ".") -> list[Path]:
    found = (p for p in (ROOT / below).rglob("*") if p.suffix in suffixes and p.is_file())
    environments = {venv.parent.name for venv in ROOT.glob("*/pyvenv.cfg")}
    return [p for p in found if not (SKIPPED | environments) & set(p.relative_to(ROOT).parts)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def op_sections() -> str:
    return "".join(
        (ROOT / "otcuda" / f"{part}.py").read_text() for part in ("_ops", "_power", "_heights")
    )


def registered_ops() -> list[str]:
    return re.findall(r"^@registers\ndef _register_(\w+)\(", op_sections(), re.MULTILINE)


# --- the op in every layer ------------------------------------------------------------------------


def test_ops_are_registered():
    assert {"cell_mass", "power_argmax"} <= set(registered_ops())


@pytest.mark.parametrize("op", registered_ops())
def test_an_op_has_all_its_files(op):
    wanted = [f"csrc/common/{op}.h", f"csrc/bindings/{op}.cpp", f"python_tests/ops/test_{op}.py"]
    missing = [path for path in wanted if not (ROOT / path).is_file()]
    missing += [] if list((ROOT / "csrc/cpu").glob(f"{op}*.cpp")) else [f"csrc/cpu/{op}*.cpp"]
    reference = (ROOT / "otcuda/reference.py").read_text()
    missing += [] if f"\ndef {op}(" in reference else [f"{op} in otcuda/reference.py"]
    missing += [] if f"\ndef {op}(" in op_sections() else [f"{op} in otcuda/_ops.py or its like"]
    headings = (ROOT / "docs/ops.md").read_text()
    missing += [] if f"\n## {op}\n" in headings else [f"heading {op} in docs/ops.md"]
    assert missing == []


def test_every_binding_has_contract_body_and_test():
    missing = []
    for binding in files(".cpp", below="csrc/bindings"):
        stem = binding.stem
        if stem in ("module", "cuda_absent"):  # no ops
            continue
        if not (ROOT / f"csrc/common/{stem}.h").is_file():
            missing.append(f"csrc/common/{stem}.h")
        if not list((ROOT / "csrc/cpu").glob(f"{stem}*.cpp")):
            missing.append(f"csrc/cpu/{stem}*.cpp")
        if not list((ROOT / "python_tests").rglob(f"test_{stem}.py")):
            missing.append(f"test_{stem}.py")
    assert missing == []


# --- arrows ---------------------------------------------------------------------------------------


def wrong_includes(path: str, text: str) -> list[str]:
    """`path` is below csrc, such as cpu/x.cpp."""
    layer = path.partition("/")[0]
    found = []
    for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE):
        target = included.partition("/")[0]
        if target in ARROWS and target != layer and target not in ARROWS[layer]:
            found.append(f"{path} includes {included}")
    stem = Path(path).stem
    if layer == "cpu" and stem.rpartition("_")[2] in {*LEVELS, "body"}:
        for header in re.findall(r"^\s*#\s*include\s+<([^>]+)>", text, re.MULTILINE):
            if header not in PLAIN_HEADERS:
                found.append(f"{path} includes <{header}>, compiled for one instruction set")
    return found


def test_includes_go_one_way():
    found = []
    for path in files(".h", ".cpp", ".cu", ".cuh", below="csrc"):
        found += wrong_includes(path.relative_to(ROOT / "csrc").as_posix(), path.read_text())
    assert found == []


def imports_of_the_core(text: str) -> bool:
    return re.search(r"import _C\b|otcuda\._C\b|from \._C\b", text) is not None


def test_the_core_is_imported_once():
    who = [
        name(path) for path in files(".py", below="otcuda") if imports_of_the_core(path.read_text())
    ]
    assert who == ["otcuda/_ops.py"]


# --- every file -----------------------------------------------------------------------------------


def file_faults(path: str, text: str) -> list[str]:
    lines = text.splitlines()
    suffix = Path(path).suffix
    found = []
    if suffix in SOURCES:
        if len(lines) > LINES:
            found.append(f"{path} has {len(lines)} lines")
        head = lines[1:2] if text.startswith("#!") else lines[:1]
        if not head or "SPDX-License-Identifier: Apache-2.0" not in head[0]:
            found.append(f"{path} does not begin with the SPDX line")
    for number, line in enumerate(lines, 1):
        if re.search(r"/(?:root|home|Users|work|opt/v)(?:/|\b)", line):
            found.append(f"{path}:{number} names a path of some machine")
        if suffix in SOURCES and re.search(r"\b(?:TODO|FIXME|XXX)\b", line):
            found.append(f"{path}:{number} leaves something to do")
    return found


def test_files():
    found = []
    for path in files(*TEXTS):
        if path != Path(__file__):
            found += file_faults(name(path), path.read_text())
    assert found == []


def function_faults(path: str, text: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
        # Keywords with defaults are configuration; a stage's door may have many.
        needed = [
            a
            for a, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if default is None
        ]
        count = len(arguments) + len(needed) - (arguments[:1] in (["self"], ["cls"]))
        documented = ast.get_docstring(node, clean=False) is not None
        first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
        length = node.end_lineno - first.lineno + 1
        if length > FUNCTION_LINES:
            found.append(f"{path}:{node.lineno} {node.name} has {length} lines")
        if count > PARAMETERS:
            found.append(f"{path}:{node.lineno} {node.name} takes {count} parameters")
    return found


def test_functions():
    found = []
    for path in files(".py", below="otcuda"):
        found += function_faults(name(path), path.read_text())
    assert found == []


def test_verbs_of_the_makefile_are_documented():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    told = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[1].split())
    assert targets == told == phony


# --- the checks can fail --------------------------------------------------------------------------

SPDX = "# SPDX-License-Identifier: Apache-2.0\n"


@pytest.mark.parametrize(
    ("path", "text", "count"),
    [
        ("common/x.h", '#include "cpu/x.h"\n', 1),
        ("cuda/x.cu", '#include "cpu/x.h"\n#include "common/x.h"\n', 1),
        ("cpu/x.cpp", '#include "cpu/y.h"\n#include <vector>\n', 0),
        ("cpu/x_avx2.cpp", "#include <vector>\n#include <immintrin.h>\n", 1),
        ("bindings/x.cpp", '#include "cuda/x.h"\n', 0),
    ],
)
def test_a_wrong_include_is_found(path, text, count):
    assert len(wrong_includes(path, text)) == count


@pytest.mark.parametrize(
    ("path", "text", "count"),
    [
        ("x.py", SPDX, 0),
        ("x.py", "pass\n", 1),
        ("x.sh", "#!/bin/sh\n" + SPDX, 0),
        ("x.py", SPDX + "\n" * LINES, 1),
        ("x.md", "see /" + "home/someone/x\n", 1),
        ("x.py", SPDX + "# TODO\n", 1),
    ],
)
def test_a_wrong_file_is_found(path, text, count):
    assert len(file_faults(path, text)) == count


def test_a_wrong_function_is_found():
    body = "\n".join("    pass" for _ in range(FUNCTION_LINES + 1))
    assert len(function_faults("x.py", f"def f():\n{body}\n")) == 1
    arguments = ", ".join(f"a{k}" for k in range(PARAMETERS))
    assert function_faults("x.py", f"def f(self, {arguments}): pass\n") == []
    assert len(function_faults("x.py", f"def f(b, {arguments}): pass\n")) == 1
    assert imports_of_the_core("from otcuda import _C as native")
    assert not imports_of_the_core("from otcuda import _Cells")

# SPDX-License-Identifier: Apache-2.0
"""Objects of one instruction set export no weak symbol and run nothing before main."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def check_objects():
    path = ROOT / "tools" / "check_objects.py"
    spec = importlib.util.spec_from_file_location("check_objects", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_objects_of_the_last_build_are_clean(check_objects):
    objects = check_objects.level_objects(ROOT / "build")
    if not objects:
        pytest.skip("no build folder here; .ci/run has one")
    assert [fault for path in objects for fault in check_objects.faults(path)] == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("inline int f(int x) { return x; } int (*g)(int) = f;", "weak symbol"),
        ("template <class T> T f(T x) { return x; } template int f(int);", "weak symbol"),
        ("int g(); static int x = g(); int f() { return x; }", "global constructor"),
        ("namespace { int f(int x) { return x; } } int g(int x) { return f(x); }", None),
    ],
)
def test_the_check_can_fail(code, fault, check_objects, tmp_path):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs a compiler and nm")
    source, target = tmp_path / "x.cpp", tmp_path / "op_avx2.cpp.o"
    source.write_text(code)
    subprocess.run([compiler, "-c", "-O0", source, "-o", target], check=True)
    (tmp_path / "op_portable.cpp.o").write_bytes(b"not looked at")
    assert check_objects.level_objects(tmp_path) == [target]
    found = check_objects.faults(target)
    assert bool(found) == (fault is not None)
    assert all(fault in line for line in found)

# SPDX-License-Identifier: Apache-2.0
"""What checkers see is what there is: otcuda/_C.pyi (`make golden` rewrites it), and lazy names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import golden_stub
import pytest

from otcuda._ops import native

STUB = Path(__file__).parents[1] / "otcuda" / "_C.pyi"


def told(tree):
    """Name -> parameters of each overload, as the stub has them."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
            found.setdefault(node.name, []).append(arguments)
        elif isinstance(node, ast.ClassDef):
            methods = told(node)
            found |= {f"{node.name}.{name}": value for name, value in methods.items()}
    return found


def real(scope, prefix=""):
    """The same, as pybind11 writes it into docstrings."""
    found = {}
    for name, value in vars(scope).items():
        if isinstance(value, type):
            found |= real(value, f"{name}.")
        elif not name.startswith("_") or name == "__init__":
            signatures = re.findall(
                rf"(?:^|\d\. ){name}\((.*)\) ->", value.__doc__ or "", re.MULTILINE
            )
            parts = [re.findall(r"(?:^|, )(\w+)(?=:|,|$)", text) for text in signatures]
            if isinstance(value, property):
                parts = [["self"]]
            if parts:
                found[prefix + name] = parts
    return found


def test_names_and_parameters_are_those_of_the_core():
    assert told(ast.parse(STUB.read_text())) == real(native)


def test_every_type_is_told():
    arguments = [n for n in ast.walk(ast.parse(STUB.read_text())) if isinstance(n, ast.arg)]
    types = [ast.unparse(n.annotation) for n in arguments if n.annotation is not None]
    assert len(types) > 200
    assert "..." not in types  # a class that was bound later


@pytest.mark.skipif(
    importlib.util.find_spec("pybind11_stubgen") is None, reason="needs pybind11-stubgen"
)
def test_text_is_what_stubgen_writes():
    assert STUB.read_text() == golden_stub.stub()


@pytest.mark.parametrize("name", ["otcuda", "otcuda.codec", "otcuda.evaluation"])
def test_checkers_see_each_name_that_is_loaded_when_first_used(name):
    package = importlib.import_module(name)
    (block,) = (
        node
        for node in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    told_names = []
    for line in block.body:
        for alias in line.names:
            assert alias.name == alias.asname  # so that strict checkers let it be imported
            there = getattr(importlib.import_module(line.module), alias.name)
            assert there is getattr(package, alias.name)
            told_names.append(alias.name)
    names = {*package.__all__, *getattr(package, "_PACKAGES", ())}
    assert sorted(told_names) == sorted(names)
    assert [node.name for node in block.orelse] == ["__getattr__"]  # which would be Any for all

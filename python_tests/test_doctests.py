# SPDX-License-Identifier: Apache-2.0
"""Examples in docstrings give what they show, of the package that is installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import otcuda

MODULES = [
    info.name
    for info in pkgutil.walk_packages(otcuda.__path__, "otcuda.")
    if info.name not in ("otcuda.__main__", "otcuda._C")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    names = {key: importlib.import_module(key) for key in ("torch", "numpy")}
    tests = doctest.DocTestFinder(exclude_empty=True).find(
        module, extraglobs={"np": names["numpy"], "torch": names["torch"]}
    )
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [
        t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples
    ]
    assert len(found) >= 5

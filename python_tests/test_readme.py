# SPDX-License-Identifier: Apache-2.0
"""Documents are true: their Python runs, their commands exist, their tables are recorded."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
import shutil
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from cli_runner import photograph, png, run
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from otcuda.cli import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
DOCUMENTS += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
COMMANDS = [
    "pip install -c constraints.txt . && otcuda demo",
    'pip install -c constraints.txt ".[test]" && pytest',
]


def needs_weights(text):
    data = files("otcuda") / "data" / "weights.safetensors"
    return "codec" in "".join(blocks(text, "python")) and not data.is_file()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def shell_lines(document):
    return "".join(blocks((ROOT / document).read_text(), "bash")).splitlines()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_in_documents_runs(document, tmp_path, monkeypatch):
    text = (ROOT / document).read_text()
    if needs_weights(text):
        pytest.skip("this build has no weights")
    examples = list(
        Sybil([PythonCodeBlockParser(doctest_optionflags=FLAGS), SkipParser()])
        .parse(ROOT / document)
        .examples()
    )
    assert len(examples) >= len(blocks(text, "python"))
    shutil.copy(str(files("otcuda") / "data" / "demo.jpg"), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for example in examples:
        example.evaluate()


def test_the_first_two_commands():
    lines = shell_lines("README.md")
    assert lines[:2] == COMMANDS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in shell_lines(document):
        for command in re.split(r"&&|\|", line):
            words = shlex.split(command)
            if words[0] == "otcuda":
                verb = cli.commands[words[1]]
                known = {name for option in verb.params for name in option.opts}
                given = {word for word in words[2:] if word.startswith("-") and word != "-"}
                assert given <= known, line
            elif words[0] == "make":
                assert set(words[1:]) <= targets, line
            else:
                assert words[0] in ("pip", "pytest"), line


def test_round_trip_lines_of_the_readme(tmp_path, monkeypatch, mosaic):
    """Those that need nothing but a picture, with the mosaic for a codec."""
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(png(photograph()))
    for line in [w for w in shell_lines("README.md") if w.startswith("otcuda") and "|" not in w]:
        words = shlex.split(line)[1:]
        if words[0] in ("compress", "info", "decompress") and "photo" in words[1]:
            assert run(*words).code == 0, line
    assert Path("natural.png").is_file()


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            place = (ROOT / document).parent / target
            assert place.exists(), f"{document}: {target}"
        for name in re.findall(r"\bdocs/\w+\.md\b", text):
            assert (ROOT / name).exists(), f"{document}: {name}"


def test_tables_are_the_recorded_ones():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "tools" / "readme_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (ROOT / "README.md").read_text()
    assert tables.with_tables(text) == text
    for name in list(tables.TABLES):
        tables.TABLES[name] = lambda name=name: f"new table of {name}"
        assert f"new table of {name}" in tables.with_tables(text)


def test_the_source_archive_has_what_these_tests_read():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]
    assert settings["sdist"]["exclude"] == [".ci"]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250

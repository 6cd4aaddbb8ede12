# SPDX-License-Identifier: Apache-2.0
"""Edges of the command line: closed streams, names, folders that cannot be read or written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_runner import photograph, png, run

from otcuda import __main__, batch
from otcuda._io import atomic_write

pytestmark = pytest.mark.usefixtures("mosaic")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(photograph()))
    return path


def shell(line, environment):
    """Exit code and stderr of a line of the shell, in which `otcuda` is the command."""
    function = f'otcuda() {{ "{sys.executable}" -m otcuda "$@"; }}; '
    environment = environment | {"PYTHONUNBUFFERED": ""}  # what cannot be written waits till exit
    done = subprocess.run(
        ["bash", "-c", function + line], env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stderr


def words(result):
    return " ".join(result.err.split())


# --- streams --------------------------------------------------------------------------------------


def test_help_alone_is_laid_out_as_help():
    alone, asked = run(), run("--help")
    assert (alone.code, asked.code) == (2, 0)
    assert alone.err == asked.out.decode()


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("otcuda compress - -o x.otc <&-", 1, "otcuda: stdin: bad file descriptor\n"),
        ("otcuda info x >&-", 1, "otcuda: x: no such file or directory\n"),
        ("otcuda --help >&-", 1, "otcuda: bad file descriptor\n"),
        ("otcuda --help >/dev/full", 1, "otcuda: no space left on device\n"),
        ("otcuda info x 2>&-", 1, ""),
        ("otcuda --help | true; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_a_stream_that_cannot_be_used_is_an_error_of_one_line(
    line, code, says, python_environment, tmp_path
):
    assert shell(f"cd '{tmp_path}'; {line}", python_environment) == (code, says)


def test_a_closed_stdout_is_no_error_where_nothing_is_written_to_it(photo, python_environment):
    code, says = shell(f"otcuda compress -q --bytes 99 '{photo}' >&-", python_environment)
    assert (code, says) == (0, "")
    assert 0 < photo.with_suffix(".otc").stat().st_size <= 99


def test_ctrl_c_while_modules_are_read(capsys, monkeypatch):
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "otcuda.cli":
                signal.raise_signal(signal.SIGINT)

    monkeypatch.delitem(sys.modules, "otcuda.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.setattr("gc.freeze", lambda: None)
    assert __main__.main() == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


SLOW_WORKER = """
import os, signal, sys, time
if "spawn_main" in " ".join(sys.orig_argv):
    with open(r"{begun}", "a") as file:
        file.write(".")
    os.kill(os.getpid(), signal.SIGINT)  # as a terminal does
    time.sleep(0.5)
"""


def test_ctrl_c_while_workers_are_starting(tmp_path, python_environment):
    begun, pictures = tmp_path / "begun", tmp_path / "pictures"
    pictures.mkdir()
    for k in range(2):
        (pictures / f"{k}.png").write_bytes(png(photograph(seed=k)))
    (tmp_path / "sitecustomize.py").write_text(SLOW_WORKER.format(begun=begun))
    path = f"{tmp_path}{os.pathsep}{python_environment['PYTHONPATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "otcuda", "compress", pictures, "-o", tmp_path / "out", "-j", "2"],
        env=python_environment | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (begun.exists() and begun.stat().st_size == 2) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1].strip() == "interrupted"
    assert process.returncode == 130
    deadline = time.monotonic() + 10
    while any(group_of(folder) == process.pid for folder in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_of(folder):
    """The process group of a folder of /proc, or None of one that has just ended."""
    try:
        return os.getpgid(int(folder.name))
    except ProcessLookupError:
        return None


# --- names ----------------------------------------------------------------------------------------


def test_an_output_that_ends_in_a_slash_is_a_folder(photo, tmp_path):
    assert run("compress", photo, "-o", f"{tmp_path}/new/", "--bytes", 99).code == 0
    assert (tmp_path / "new" / "photo.otc").is_file()


@pytest.mark.parametrize("arguments", [("", "-o", "out"), ("photo.png", "-o", "")])
def test_an_empty_name_is_not_the_current_folder(arguments, photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    result = run("compress", *arguments)
    assert result.code == 2
    assert "a name is empty" in words(result)
    assert list(photo.parent.iterdir()) == [photo]


def test_a_file_where_a_folder_should_be_is_named(photo, tmp_path):
    for output in (photo / "x.otc", f"{photo}/"):
        result = run("compress", photo, "-o", output, "--bytes", 99)
        assert (result.code, words(result)) == (1, f"otcuda: {photo}: is a file, not a folder")


def test_a_single_file_is_in_one_shard_alone(photo):
    assert "nothing to do in part 1 of 2" in run("compress", photo, "--shard", "1/2").err
    assert not photo.with_suffix(".otc").exists()
    assert run("compress", photo, "--shard", "0/2", "--bytes", 99).code == 0


# --- folders --------------------------------------------------------------------------------------


def refuse(monkeypatch, name, forbidden):
    """Makes a function of `os` refuse what lies in a folder: tests run as root, who may all."""
    real = getattr(os, name)

    def checked(path, *arguments, **more):
        if str(path).startswith(str(forbidden)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, name, checked)


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_goes_on(photo, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "a.png").write_bytes(photo.read_bytes())
    refuse(monkeypatch, "scandir", closed)
    refuse(monkeypatch, "stat", closed / "a.png")
    plan = batch.plan([str(tmp_path)], str(tmp_path / "out"), batch.PICTURES, ".otc")
    assert [job.source for job in plan.jobs] == [str(closed), str(photo)]
    with pytest.raises(PermissionError):
        batch.plan([str(closed)], str(tmp_path / "out"), batch.PICTURES, ".otc")
    records = list(batch.run(plan.jobs, batch.Compress(bytes=99)))
    assert [record["error"] is None for record in records] == [False, True]


def test_what_cannot_be_written_is_named_not_what_was_read(photo, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run("compress", photo, "-o", out, "--bytes", 99)
    assert words(result) == f"otcuda: {out}/photo.otc: no space left on device"
    result = run("compress", tmp_path, "-o", out, "--bytes", 99, "--json")
    assert f'"error": "{out}/photo.otc: no space left on device"' in result.out.decode()
    assert [path.suffix for path in out.iterdir()] == [".jsonl"]


def test_an_error_never_shows_the_name_of_a_temporary_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "none" / "x", b"")
    assert caught.value.filename == str(tmp_path / "none" / "x")

    def other(file):
        (tmp_path / "other").read_bytes()

    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "x", other)
    assert caught.value.filename == str(tmp_path / "other")

# SPDX-License-Identifier: Apache-2.0
"""atomic_write: a file is whole or absent, whatever kills the writer and whoever else writes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from otcuda._io import atomic_write, sweep_temps

WRITER = """
import sys
from otcuda._io import atomic_write
def pieces(file):
    for _ in range(64):  # in pieces, so that a kill can come between them
        file.write(version.to_bytes(8, "little") * 2048)
        file.flush()
version = 1
while True:
    atomic_write(sys.argv[1], pieces)
    print(version, flush=True)
    version += 1
"""


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start(code, *arguments, **more):
    environment = os.environ | {"PYTHONPATH": str(Path(sys.modules["otcuda"].__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, **more)


def test_replaces_and_leaves_nothing_else(target):
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    atomic_write(target, lambda file: file.write(b"newer"))
    assert target.read_bytes() == b"newer"
    assert names(target.parent) == ["result.bin"]


def test_a_killed_writer_leaves_a_whole_file(target):
    rng = random.Random(0)
    for _ in range(8):
        with start(WRITER, target) as writer:
            writer.stdout.readline()
            time.sleep(rng.random() * 0.05)
            writer.kill()
        data = target.read_bytes()
        assert len(data) == 64 * 2048 * 8
        assert data == data[:8] * (64 * 2048)
    for temp in target.parent.glob(".*.tmp"):
        os.utime(temp, (0, 0))
    atomic_write(target, b"new")
    assert names(target.parent) == ["result.bin"]


def test_no_room_keeps_the_old_file(target):
    code = """
import resource, sys
from otcuda._io import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(sys.argv[1], bytes(100_000))
except OSError as error:
    print(error.strerror)
"""
    with start(code, target) as writer:
        assert writer.stdout.read() == b"File too large\n"
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["result.bin"]


def test_a_full_device_is_an_error():
    with pytest.raises(OSError, match="No space left"):
        atomic_write("/dev/full", bytes(100_000))


def test_a_failing_function_keeps_the_old_file(target):
    def fails(file):
        file.write(b"half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        atomic_write(target, fails)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["result.bin"]


def test_overwrite_false_also_refuses_what_appears_meanwhile(target):
    with pytest.raises(FileExistsError):
        atomic_write(target, b"new", overwrite=False)
    target.unlink()

    def meanwhile(file):
        file.write(b"new")
        target.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        atomic_write(target, meanwhile, overwrite=False)
    assert target.read_bytes() == b"theirs"
    assert names(target.parent) == ["result.bin"]
    target.unlink()
    atomic_write(target, b"new", overwrite=False)
    assert target.read_bytes() == b"new"


def test_the_mode_stays_and_links_are_followed(target):
    target.chmod(0o640)
    link = target.with_name("link.bin")
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path, b"new")
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "none" / "x", b"new")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, os.fsdecode(b"\xff\n")])
def test_any_name_that_the_disk_takes(name, tmp_path):
    atomic_write(tmp_path / name, b"new")
    assert names(tmp_path) == [name]


def test_many_threads_write_one_file(target):
    versions = [bytes([k]) * 50_000 for k in range(8)]
    threads = [threading.Thread(target=atomic_write, args=(target, v)) for v in versions * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in versions
    assert names(target.parent) == ["result.bin"]


def test_only_old_temps_of_dead_processes_are_swept(tmp_path):
    with start("import os; print(os.getpid())") as process:
        dead = int(process.stdout.read())
    old, fresh = tmp_path / f".old.{dead}.tmp", tmp_path / f".fresh.{dead}.tmp"
    alive, other = tmp_path / f".alive.{os.getpid()}.tmp", tmp_path / ".other.tmp"
    for path in (old, fresh, alive, other):
        path.touch()
    for path in (old, alive, other):
        os.utime(path, (0, 0))
    sweep_temps(tmp_path)
    assert {fresh.name, alive.name, other.name} == set(names(tmp_path))

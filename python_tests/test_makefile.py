# SPDX-License-Identifier: Apache-2.0
"""make: the bare command lists the targets, and training in the background is polite."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Stands in for Python: says with which arguments and at which priority it was started.
RECORDER = """#!/bin/sh
[ "$2" = otcuda ] || exec true
echo "$@" >"$RECORD.part"
nice >>"$RECORD.part"
echo "threads $OMP_NUM_THREADS, session $(ps -o sid= -p $$), own $$" >>"$RECORD.part"
mv "$RECORD.part" "$RECORD"
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*arguments):
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_bare_make_lists_every_target():
    listed = [line.split()[0] for line in make().splitlines()]
    phony = next(t for t in (ROOT / "Makefile").read_text().splitlines() if t.startswith(".PHONY"))
    assert sorted(listed) == sorted(phony.split()[1:])


def test_training_in_the_background_is_polite_and_detached(tmp_path):
    recorder, record = tmp_path / "python", tmp_path / "record"
    recorder.write_text(RECORDER.replace("$RECORD", str(record)))
    recorder.chmod(0o755)
    run = tmp_path / "run"
    told = make("train-background", f"PYTHON={recorder}", f"RUN={run}", "DATA=pictures")
    assert f"tail -f {run}/train.txt" in told
    deadline = time.monotonic() + 120
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    arguments, niceness, rest = record.read_text().splitlines()
    assert arguments == f"-m otcuda train {run} --data pictures --start shipped --threads 1"
    assert niceness == "19"
    assert rest.startswith("threads 1, session ")
    session, own = rest.removeprefix("threads 1, session ").split(", own ")
    assert session.strip() == own  # its own session: the terminal may close
    assert (run / "train.txt").exists()

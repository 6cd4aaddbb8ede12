# SPDX-License-Identifier: Apache-2.0
"""Times rivals side by side: interleaved rounds, the first dropped, medians, one JSON an op."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from otcuda._io import atomic_write

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Case:
    """One row: every rival is called with the arguments; `work` units are done by a call.

    `peak`, where given, returns what the hardware could do, in `unit`; it takes its turn in every
    round, and the rates are also given as fractions of it.
    """

    name: str
    arguments: tuple[Any, ...]
    work: float
    unit: str
    rivals: dict[str, Callable[..., Any]]
    notes: dict[str, Any] = field(default_factory=dict)
    peak: Callable[[], float] | None = None


def seconds_of(call: Callable[..., Any], arguments: tuple[Any, ...], least: float) -> float:
    """CPU seconds of a call, repeated for `least` seconds; other load counts for less."""
    calls, start = 0, time.process_time()
    while True:
        call(*arguments)
        calls += 1
        taken = time.process_time() - start
        if taken >= least:
            return taken / calls


def summary(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "range": [min(values), max(values)]}


def measure(case: Case, rounds: int, least: float) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in case.rivals}
    peaks: list[float] = []
    for turn in range(rounds + 1):
        if case.peak is not None and turn:
            peaks.append(case.peak())
        for name, call in case.rivals.items():
            seconds = seconds_of(call, case.arguments, least)
            if turn:
                rates[name].append(case.work / seconds)
    row = {"case": case.name, "unit": case.unit}
    row["rates"] = {name: summary(values) for name, values in rates.items()}
    if peaks:
        row["peak"] = summary(peaks)
        for rate in row["rates"].values():
            rate["of_peak"] = rate["median"] / row["peak"]["median"]
    return {**row, **case.notes}


def line(row: dict[str, Any]) -> str:
    rates = (
        f"{name} {rate['median']:.4g}" + (f" ({rate['of_peak']:.0%})" if "of_peak" in rate else "")
        for name, rate in row["rates"].items()
    )
    return f"{row['case']:34s} {row['unit']:9s} " + "  ".join(rates)


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for entry in info.read_text().splitlines() if info.exists() else []:
        if entry.startswith("model name"):
            return entry.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def resident(name: str) -> int:
    """VmHWM or VmRSS of this process, bytes: the most that it has held, and what it holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def environment(packages: Iterable[str]) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "working tree" if package == "otcuda" else "absent"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "commit": commit.stdout.strip(),
        "cpu": cpu_model(),
        "cores": cores,
        "versions": versions,
    }


def main(op: str, cases: Iterable[Case], packages: Iterable[str] = (), **notes: Any) -> None:
    """Measures the cases on one thread, prints them and writes results/<op>.<machine>.json.

    A note that is callable is called after the last case.
    """
    parser = argparse.ArgumentParser(description=f"benchmark of {op}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--least", type=float, default=0.02, help="CPU seconds a measurement")
    parser.add_argument("--machine", default=platform.machine(), help="part of the result's name")
    options = parser.parse_args()
    load, rows = [os.getloadavg()[0]], []
    for case in cases:
        rows.append(measure(case, options.rounds, options.least))
        print(line(rows[-1]), flush=True)
    load.append(os.getloadavg()[0])
    quiet = max(load) <= 1.5  # one thread is ours
    result = {"op": op, "clock": "cpu", "threads": 1, **environment(packages)}
    result |= {"load": load, "quiet": quiet, "rounds": options.rounds}
    result |= {name: note() if callable(note) else note for name, note in notes.items()}
    result["rows"] = rows
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{op}.{options.machine}.json"
    atomic_write(path, (json.dumps(result, indent=1) + "\n").encode())
    print(f"wrote {path}")

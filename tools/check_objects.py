# SPDX-License-Identifier: Apache-2.0
"""Refuse object files of an instruction set that could leak its code into the rest of the program.

    python tools/check_objects.py build/dev

A weak symbol of an AVX-512 object may be the copy that the linker keeps for everybody, and a global
constructor runs before the CPU is asked: both end in SIGILL on an older machine. So `*_avx2` and
`*_avx512` objects may hold neither.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LEVELS = ("avx2", "avx512", "vbmi2", "vnni", "bf16")
WEAK = frozenset("VvWwu")
CONSTRUCTOR = "_GLOBAL__sub_I"


def level_objects(folder: Path) -> list[Path]:
    """Object files of the thin per-level sources below a build folder."""
    return sorted(
        path
        for path in folder.rglob("*.o")
        if path.name.partition(".")[0].rpartition("_")[2] in LEVELS
    )


def faults(path: Path) -> list[str]:
    """What is wrong with an object file, one line a symbol."""
    command = ["nm", "--defined-only", "--format=posix", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        name, kind = line.split()[:2]
        if kind in WEAK:
            found.append(f"{path.name}: weak symbol {name} ({kind})")
        if name.startswith(CONSTRUCTOR):
            found.append(f"{path.name}: global constructor {name}")
    return found


def main() -> int:
    """Exit code 0 when every object is clean, 1 when one is not or there is none."""
    objects = [path for name in sys.argv[1:] for path in level_objects(Path(name))]
    if not objects:
        print(f"no objects of {', '.join(LEVELS)} below {' '.join(sys.argv[1:])}")
        return 1
    found = [fault for path in objects for fault in faults(path)]
    print("\n".join(found) if found else f"{len(objects)} objects are clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Rewrite python_tests/golden: each python_tests/**/golden_*.py says in golden() what it pins."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "python_tests"


def main() -> None:
    """Write every golden file and say which ones changed."""
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    for source in sorted(TESTS.rglob("golden_*.py")):
        module = importlib.import_module(".".join(source.relative_to(TESTS).with_suffix("").parts))
        for name, content in module.golden().items():
            path = TESTS / "golden" / name
            data = content.encode() if isinstance(content, str) else content
            state = "unchanged" if path.exists() and path.read_bytes() == data else "written"
            path.write_bytes(data)
            print(f"{state}: {path.name}")


if __name__ == "__main__":
    main()

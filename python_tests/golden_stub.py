# SPDX-License-Identifier: Apache-2.0
"""What otcuda/_C.pyi says: the signatures of the native core, by pybind11-stubgen."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = "# SPDX-License-Identifier: Apache-2.0\n"
ARRAY = (
    "Array: typing.TypeAlias = typing.Any  # a DLPack capsule, or what has the buffer protocol\n"
)


def stub() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", "otcuda._C", "-o", folder]
        command.append("--ignore-unresolved-names=Array")
        subprocess.run(command, check=True, capture_output=True)
        text = Path(folder, "otcuda", "_C.pyi").read_text()
    text = re.sub(
        r"typing\.Supports(Int|Float) \| typing\.SupportsIndex", lambda m: m[1].lower(), text
    )
    text = text.replace("import typing\n", f"import typing\n{ARRAY}", 1)
    return HEAD + text.rstrip() + "\n"


def golden() -> dict[str, str]:
    return {"../../otcuda/_C.pyi": stub()}

# SPDX-License-Identifier: Apache-2.0
"""PTX and machine code of csrc/cuda from nvcc; no card is needed for either."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from emulation.emulator import ROOT, digest, source_of, sources_of

FLAGS = ["-std=c++17", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "-Werror=all-warnings"]
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")  # as in cmake/FindNvcc


def compiler() -> str | None:
    """The nvcc by CUDACXX, CUDA_HOME, PATH, /usr/local/cuda, or None."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")


def compile_to(name: str, arch: str, suffix: str, cache: Path) -> tuple[Path, str]:
    """The .ptx or .cubin of one .cu file, and what ptxas said; kept until a source changes."""
    what = digest(sources_of(source_of(name)), str(compiler()), arch, suffix, *FLAGS)
    out = cache / f"{name}.{arch}.{what}{suffix}"
    log = out.with_suffix(".log")
    if not (out.exists() and log.exists()):
        partial = out.with_suffix(f".{os.getpid()}.partial")
        command = [compiler(), *FLAGS, f"-arch={arch}", f"-{suffix[1:]}", "-I", ROOT / "csrc"]
        if suffix == ".cubin":
            command += ["-Xptxas=-v,-warn-spills,-warn-lmem-usage,-Werror"]
        command += ["-o", partial, source_of(name)]
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if run.returncode or re.search(r"\(C75\d\d\)", run.stderr):  # wgmma in single file
            raise RuntimeError(f"nvcc could not compile {name}.cu for {arch}:\n{run.stderr}")
        log.write_text(run.stderr)
        partial.replace(out)
    return out, log.read_text()

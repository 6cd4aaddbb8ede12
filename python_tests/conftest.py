# SPDX-License-Identifier: Apache-2.0
"""Fixtures of every test: seeded random numbers, devices, levels of this CPU, threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import otcuda

# Child processes test this very package, installed or built in place, not what lies in the folder
# they start in.
os.environ["PYTHONSAFEPATH"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(otcuda.__file__).parent.parent), os.environ.get("PYTHONPATH")])
)

LEVELS = ["portable", "avx2", "avx512"]


@pytest.fixture
def rng():
    torch = pytest.importorskip("torch")
    return torch.Generator().manual_seed(0)


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)],
)
def device(request):
    """Each device in turn; cuda is skipped where there is none."""
    if request.param == "cuda":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    return request.param


@pytest.fixture(params=LEVELS)
def simd_level(request):
    """Each level in turn, forced; skipped where the CPU or the build lacks it."""
    from otcuda._ops import native

    if request.param not in native.simd_levels():
        pytest.skip(f"this CPU or build has no {request.param}")
    native.set_simd_level(request.param)
    yield request.param
    native.set_simd_level("auto")


@pytest.fixture(params=[*LEVELS, "vnni", "bf16"])
def screen_level(request):
    """Each level that the integer screen has a file for, forced; skipped as simd_level."""
    from otcuda._ops import native

    try:
        native.set_simd_level(request.param)
    except otcuda.BackendError:
        pytest.skip(f"this CPU or build has no {request.param}")
    yield request.param
    native.set_simd_level("auto")


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    """Each number of threads in turn, forced."""
    from otcuda._ops import native

    native.set_num_threads(request.param)
    yield request.param
    native.set_num_threads(0)


@pytest.fixture
def mosaic(monkeypatch):
    """The codec replaced by a mosaic; see mosaic.py."""
    import mosaic

    from otcuda import batch, codec

    for name in mosaic.NAMES:
        monkeypatch.setitem(vars(codec), name, getattr(mosaic, name))  # the real one stays unloaded
    batch._model.cache_clear()
    yield mosaic
    batch._model.cache_clear()


@pytest.fixture
def python_environment(tmp_path_factory, monkeypatch):
    """Environment for child processes, in which the codec is the mosaic too."""
    import otcuda

    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import mosaic\nmosaic.install()\n")
    package = Path(otcuda.__file__).parent.parent
    path = [folder, Path(__file__).parent, package]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }

# SPDX-License-Identifier: Apache-2.0
"""Switches of the native core: levels, threads, memory; imports without torch; errors; fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import otcuda
from otcuda import errors
from otcuda._ops import native


def run(code, **environment):
    """Output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    return done.stdout.strip() + done.stderr.strip()


def test_import_loads_neither_torch_nor_the_core():
    code = "import otcuda, sys; print('torch' in sys.modules, 'otcuda._C' in sys.modules)"
    assert run(code) == "False False"


def test_every_public_name_is_there_and_an_unknown_one_is_not():
    for name in otcuda.__all__:
        assert getattr(otcuda, name).__doc__
        assert name in dir(otcuda)
    with pytest.raises(AttributeError, match="no attribute 'power_argmin'"):
        otcuda.power_argmin  # noqa: B018


def test_a_missing_level_is_an_error_however_it_is_asked_for():
    with pytest.raises(otcuda.BackendError, match=r"'sse9'; this CPU and build have: portable"):
        otcuda.set_simd_level("sse9")
    code = "import otcuda\ntry: otcuda.backend_info()\nexcept otcuda.BackendError as e: print(e)"
    assert run(code, OTCUDA_SIMD="sse9").startswith("OTCUDA_SIMD asks for level 'sse9'")
    missing = {"portable", "avx2", "avx512"} - set(native.simd_levels())
    for level in missing:
        with pytest.raises(otcuda.BackendError, match=level):
            otcuda.set_simd_level(level)


def test_environment_chooses_level_and_threads():
    code = "import otcuda; i = otcuda.backend_info(); print(i['simd_level'], i['num_threads'])"
    assert run(code, OTCUDA_SIMD="portable", OTCUDA_NUM_THREADS="5") == "portable 5"
    assert run(code, OTCUDA_SIMD="auto", OTCUDA_NUM_THREADS="1") == f"{native.simd_levels()[-1]} 1"
    bad = "import otcuda\ntry: otcuda.backend_info()\nexcept ValueError as e: print(e)"
    for number in ("0", "many", "2000"):
        assert "expected 1 to 1024" in run(bad, OTCUDA_NUM_THREADS=number)


def test_forced_threads_come_before_the_host_library():
    native.set_host_num_threads(3)
    assert native.num_threads() == int(os.environ.get("OTCUDA_NUM_THREADS", 3))
    otcuda.set_num_threads(2)
    assert native.num_threads() == 2
    otcuda.set_num_threads(0)
    native.set_host_num_threads(0)
    with pytest.raises(otcuda.ArgumentError, match="number of threads is -1"):
        otcuda.set_num_threads(-1)


def test_backend_info_counts_what_ran():
    otcuda.backend_info(reset=True)
    x = np.zeros((5, 2), "f4")
    for _ in range(3):
        otcuda.power_argmax(x, x, np.zeros(5, "f4"))
    info = otcuda.backend_info(reset=True)
    assert info["paths"] == {f"power_argmax/{info['simd_level']}": {"calls": 3, "items": 15}}
    assert otcuda.backend_info()["paths"] == {}
    assert isinstance(info["cuda"], bool)


def test_errors_are_ours_and_the_builtin_that_fits():
    fits = {
        "ShapeError": ValueError,
        "ArgumentError": ValueError,
        "CorruptDataError": ValueError,
        "ModelMismatchError": ValueError,
        "BudgetError": ValueError,
        "DeviceError": RuntimeError,
        "BackendError": RuntimeError,
        "LimitError": MemoryError,
    }
    for name, builtin in fits.items():
        assert issubclass(getattr(errors, name), errors.Error)
        assert issubclass(getattr(errors, name), builtin)


def test_memory_is_counted_and_negative_limits_refused():
    before, count = native.memory_in_use(), native.allocation_count()
    native.reset_memory_peak()
    otcuda.cell_mass(np.zeros(10, np.int64), 1000, np.ones(10))
    assert native.memory_peak() - before >= 8000
    assert native.memory_in_use() == before
    assert native.allocation_count() > count
    with pytest.raises(otcuda.ArgumentError, match="memory limit is -1"):
        otcuda.set_memory_limit(-1)


def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 8)).astype("f4"), rng.normal(size=(3000, 8)).astype("f4")
    return x, y, np.zeros(3000, "f4")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_after_use_works():
    arguments = problem()
    otcuda.set_num_threads(3)
    expected = otcuda.power_argmax(*arguments)[1].tobytes()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0 if otcuda.power_argmax(*arguments)[1].tobytes() == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
    otcuda.set_num_threads(0)


def test_python_threads_do_not_disturb_each_other():
    arguments = problem()
    otcuda.set_num_threads(2)
    expected, results = otcuda.power_argmax(*arguments)[1].tobytes(), []

    def work():
        for _ in range(5):
            results.append(otcuda.power_argmax(*arguments)[1].tobytes())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    otcuda.set_num_threads(0)
    assert results == [expected] * 15


def test_no_thread_stays_behind():
    otcuda.set_num_threads(4)
    otcuda.power_argmax(*problem())
    otcuda.set_num_threads(0)
    before = len(list(Path("/proc/self/task").iterdir()))
    otcuda.set_num_threads(4)
    otcuda.power_argmax(*problem())
    otcuda.set_num_threads(0)
    assert len(list(Path("/proc/self/task").iterdir())) == before


def test_fma_peak_is_a_speed():
    otcuda.set_simd_level("portable")
    slow = native.fma_peak(0.01)
    otcuda.set_simd_level("auto")
    fast = native.fma_peak(0.01)
    assert 1e8 < slow < 1e12
    if native.simd_levels() != ["portable"]:
        assert fast > 2 * slow

# SPDX-License-Identifier: Apache-2.0
"""`otcuda doctor`: what this installation has and why, and a self-test of seconds.

The self-test runs every op at every level of this CPU and on one, two and three threads: all must
give the same bits, and those of exact integer arithmetic.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import otcuda
from otcuda import _nets, _ops, _power, batch
from otcuda._ops import native
from otcuda._torch import INSTALL
from otcuda.errors import Error

# Flags of /proc/cpuinfo that a level needs.
NEEDS = {
    "portable": (),
    "avx2": ("avx2", "fma"),
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512dq"),
}
THREADS = (1, 2, 3)

Callback = Callable[[float, str], None]


def examine(test: bool = True, callback: Callback = lambda share, what: None) -> dict[str, Any]:
    """Everything `otcuda doctor` reports, as plain values.

    Args:
        test: run the self-test.
        callback: takes the share of the self-test that is done and what comes next.

    Returns:
        `otcuda`, `python`, `simd`, `threads`, `cuda`, `torch`, `packages`, `weights`, `self_test`,
        and `healthy`: the self-test passed (or was left out) and the weights can be read.
    """
    weights = weights_state()
    tests = self_test(callback) if test else None
    passed = tests is None or not tests["differences"]
    return {
        "schema": batch.SCHEMA,
        "command": "doctor",
        "otcuda": otcuda.__version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "machine": {"platform": platform.platform(), "cpu": _cpu_name()},
        "build": native.build_options(),
        "simd": simd_state(),
        "threads": {"in_use": native.num_threads(), "cores": len(os.sched_getaffinity(0))},
        "cuda": cuda_state(),
        "torch": torch_state(),
        "packages": {name: _version(name) for name in ("numpy", "pillow", "safetensors")},
        "weights": weights,
        "self_test": tests,
        "healthy": passed and weights["error"] is None,
    }


def report(result: dict[str, Any]) -> str:
    """What `examine` found, as text."""
    build, simd, cuda, torch = (result[key] for key in ("build", "simd", "cuda", "torch"))
    weights = result["weights"]
    rows = [
        ("otcuda", f"{result['otcuda']}, compiler {build['compiler']}"),
        ("python", f"{result['python']['version']}, {result['python']['executable']}"),
        ("cpu", f"{result['machine']['cpu']}, {result['threads']['cores']} cores"),
        ("threads", str(result["threads"]["in_use"])),
        ("simd", f"{simd['level']}: {simd['why']}"),
        ("cuda", _cuda_text(build, cuda)),
        (
            "torch",
            torch["version"] or f"not installed; training, sampling: {INSTALL}",
        ),
        ("weights", weights["error"] or f"{weights['bytes']:,} bytes, {weights['sha256'][:16]}"),
        *[("", f"{family['release']}: {family['file']}") for family in weights["families"]],
        *_test_rows(result["self_test"]),
        ("verdict", "healthy" if result["healthy"] else "not healthy"),
    ]
    return "\n".join(f"{name:10}{text}" for name, text in rows)


def simd_state() -> dict[str, Any]:
    """The level in use, those there are, and why it is this one."""
    level, levels = native.simd_level(), native.simd_levels()
    if os.environ.get("OTCUDA_SIMD", "auto") not in ("", "auto"):
        why = f"OTCUDA_SIMD={os.environ['OTCUDA_SIMD']}"
    elif level != levels[-1]:
        why = "forced by set_simd_level"
    else:
        why = "the best of this CPU and build"
        missing = {name: _missing(name) for name in NEEDS if name not in levels}
        for name, flags in missing.items():
            why += f"; {name} is out: "
            why += f"this CPU lacks {', '.join(flags)}" if flags else "this build lacks it"
    return {"level": level, "levels": levels, "why": why}


def cuda_state() -> dict[str, Any]:
    """Driver and devices by the driver library itself; neither torch nor a CUDA build is needed."""
    state: dict[str, Any] = {"driver": None, "devices": [], "error": None}
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return state | {"error": "no driver: libcuda.so.1 is not there"}
    version, count = ctypes.c_int(), ctypes.c_int()
    code = driver.cuInit(0)
    if code != 0:
        return state | {"error": f"the driver says error {code} (cuInit)"}
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    state["driver"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
    state["devices"] = [_device(driver, k) for k in range(count.value)]
    return state


def torch_state() -> dict[str, Any]:
    """The version installed, without importing it."""
    return {"version": _version("torch")}


def weights_state() -> dict[str, Any]:
    """Size and SHA-256 of the bundled weights for low rates, and which families there are."""
    state: dict[str, Any] = {"bytes": None, "sha256": None, "error": None, "families": []}
    folder = files("otcuda") / "data"
    try:
        data = (folder / "weights.safetensors").read_bytes()
    except OSError as error:
        return state | {"error": f"the bundled weights cannot be read: {batch.reason_of(error)}"}
    state["families"] = [_family(path) for path in sorted(Path(str(folder)).glob("*.safetensors"))]
    broken = next((f for f in state["families"] if f["error"]), None)
    if broken:
        state["error"] = f"{broken['file']}: {broken['error']}"
    return state | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _family(path: Path) -> dict[str, Any]:
    from otcuda.codec import load_models

    state: dict[str, Any] = {"file": path.name, "release": None, "error": None}
    try:
        return state | {"release": load_models(path)[0].label}
    except (Error, OSError) as error:
        return state | {"error": batch.reason_of(error, str(path))}


# --- self-test ------------------------------------------------------------------------------------


def self_test(callback: Callback = lambda share, what: None) -> dict[str, Any]:
    """Run each op at every level and number of threads and compare the bits.

    Returns:
        `runs`, `seconds`, and `differences`: one line for each op, level and number of threads
        that does not agree with the first run, or fails.
    """
    start, runs, differences = time.perf_counter(), 0, []
    level_before = native.simd_level()
    combinations = [(level, n) for level in native.simd_levels() for n in THREADS]
    try:
        for k, (name, test) in enumerate(TESTS.items()):
            callback(k / len(TESTS), name)
            expected = None
            for level, threads in combinations:
                native.set_simd_level(level)
                native.set_num_threads(threads)
                got = _digest(test)
                expected = expected or got
                runs += 1
                if got != expected or got.startswith("failed"):
                    differences.append(f"{name} at {level} on {threads} threads: {got[:70]}")
    finally:
        native.set_num_threads(0)
        native.set_simd_level("auto")
        if native.simd_level() != level_before:
            native.set_simd_level(level_before)
    seconds = round(time.perf_counter() - start, 3)
    return {"runs": runs, "seconds": seconds, "differences": differences}


def _digest(test: Callable[[], Iterator[np.ndarray]]) -> str:
    try:
        arrays = list(test())
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def _test_cell_mass() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(1)
    for B, N in [(1, 1), (1000, 17), (70_000, 5000)]:
        index = rng.integers(-1, N, B)
        count = _ops.cell_mass(index, N)
        if not np.array_equal(count, np.bincount(index[index >= 0], minlength=N)):
            raise ArithmeticError("counts differ from NumPy's")
        yield count
        yield _ops.cell_mass(index, N, rng.standard_normal(B).astype(np.float32))


def _test_power_argmax() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(2)
    for B, N, D in [(1, 1, 1), (65, 130, 17), (300, 1000, 64)]:
        x, y = (rng.integers(-8, 9, (n, D)).astype(np.float32) for n in (B, N))
        h = rng.integers(-8, 9, N).astype(np.float32)
        value, index = _power.power_argmax(x, y, h)
        score = x @ y.T + h  # small integers: exact in any order
        if not (np.array_equal(index, score.argmax(1)) and np.array_equal(value, score.max(1))):
            raise ArithmeticError("the winners differ from NumPy's")
        yield from (value, index)
        for dtype in (np.float32, np.float64):
            arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((B, D), (N, D), N)]
            yield from _power.power_argmax(*arrays)


def _test_range64() -> Iterator[np.ndarray]:
    from otcuda import coding

    rng = np.random.default_rng(3)
    tables = coding.Tables.from_weights(rng.integers(1, 1000, (5, 32)), 12, False, -16)
    symbols = rng.integers(-16, 16, 5000)
    index = rng.integers(0, 5, 5000)
    data = coding.encode_raw(symbols, tables, index)
    if not np.array_equal(coding.decode_raw(data, tables, index), symbols):
        raise ArithmeticError("the decoder returns other symbols")
    yield np.frombuffer(data, np.uint8)


def _test_source_samples() -> Iterator[np.ndarray]:
    for source in ("normal", "uniform", "gaussian_cdf"):
        out = np.empty((1000, 9), np.float32)
        yield _ops.source_samples(out, source, seed=4, stream=1)


def _test_heights() -> Iterator[np.ndarray]:
    from otcuda import heights_adam_solve

    y = np.random.default_rng(6).standard_normal((50, 4)).astype(np.float32)
    state, chi2 = heights_adam_solve(y, iterations=12, batch=1000, seed=7)
    if not chi2[-1] < chi2[0]:
        raise ArithmeticError("the cells do not get more equal")
    yield from (state.h, chi2)


def _test_context_net() -> Iterator[np.ndarray]:
    from otcuda.codec import load_model

    if weights_state()["error"]:
        return
    context, rng = load_model().context, np.random.default_rng(5)
    u = rng.laplace(0, 0.6, (context.channels, 12, 16)).astype(np.float32)
    choice = context.quantise(u, 180)
    data = context.encode(choice.symbols, 180)
    symbols, values = context.decode(data, 180, (12, 16))
    if not (np.array_equal(symbols, choice.symbols) and np.array_equal(values, choice.values)):
        raise ArithmeticError("the decoder returns other symbols")
    yield from (symbols, values, np.frombuffer(data, np.uint8))


def _test_net() -> Iterator[np.ndarray]:
    from otcuda.codec import load_model
    from otcuda.codec.pictures import noise_of

    if weights_state()["error"]:
        return
    model, rng = load_model(), np.random.default_rng(8)
    rgb = rng.integers(0, 256, (60, 130, 3), np.uint8)
    latents = _nets.net_analysis(model.analysis, rgb)
    planes = _nets.net_synthesis(model.synthesis, latents, 5.0)
    yield from (latents, planes, _nets.net_picture(planes, (0, 0), (60, 130), False))
    if model.perception is not None:
        noise = noise_of(1, (4, 4), slice(0, 4), slice(0, 4))
        perception = _nets.Perception(model.perception, *noise, 0.7)
        yield _nets.net_synthesis(model.synthesis, latents[:, :4, :4], 5.0, perception)


TESTS: dict[str, Callable[[], Iterator[np.ndarray]]] = {
    "cell_mass": _test_cell_mass,
    "power_argmax": _test_power_argmax,
    "source_samples": _test_source_samples,
    "heights": _test_heights,
    "range64": _test_range64,
    "context_net": _test_context_net,
    "net": _test_net,
}


# --- pieces ---------------------------------------------------------------------------------------


def _device(driver: ctypes.CDLL, k: int) -> dict[str, Any]:
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(128)
    driver.cuDeviceGet(ctypes.byref(handle), k)
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)  # compute capability, major
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)
    return {
        "name": name.value.decode(errors="replace"),
        "capability": f"{major.value}.{minor.value}",
        "bytes": memory.value,
    }


def _cuda_text(build: dict[str, Any], cuda: dict[str, Any]) -> str:
    reason = build["cuda_absent_reason"] or "no kernels in this build"
    compiled = "compiled in" if build["cuda"] else f"not compiled in ({reason})"
    if cuda["error"]:
        return f"{compiled}; {cuda['error']}"
    devices = ", ".join(
        f"{d['name']} ({d['capability']}, {d['bytes'] / 2**30:.0f} GiB)" for d in cuda["devices"]
    )
    return f"{compiled}; driver {cuda['driver']}; {devices or 'no device'}"


def _test_rows(tests: dict[str, Any] | None) -> list[tuple[str, str]]:
    if tests is None:
        return [("self-test", "left out")]
    wrong = tests["differences"]
    text = f"{tests['runs']} runs in {tests['seconds']:.1f} s, "
    text += f"{len(wrong)} wrong" if wrong else "the same bits at every level and thread count"
    return [("self-test", text), *[("", line) for line in wrong[:20]]]


def _missing(level: str) -> list[str]:
    flags = _cpu_field("flags").split()
    return [flag for flag in NEEDS[level] if flag not in flags]


def _cpu_name() -> str:
    return _cpu_field("model name") or platform.processor() or "unknown"


def _cpu_field(name: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in found if key.strip() == name), "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

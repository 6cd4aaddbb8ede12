# SPDX-License-Identifier: Apache-2.0
"""Many pictures at once: which file becomes which, shards, processes, and one record a picture.

The command line, a cluster's job array and a script use the same functions. A record is a flat
dictionary of plain values (`otcuda/data/cli.schema.json`), a failure is a record with `error`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import io
import itertools
import json
import math
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from otcuda._io import atomic_write, files_below, make_folder
from otcuda._torch import need_torch
from otcuda.errors import (
    ArgumentError,
    BackendError,
    CorruptDataError,
    Error,
    LimitError,
    ModelMismatchError,
)

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

SCHEMA = 1
LARGEST_INPUT_BYTES = 1 << 30
PIPE = "-"
PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".avif", ".jp2", ".bmp", ".gif", ".ppm", ".tif", ".tiff")
)
CODED = frozenset((".otc",))
_ended: list[bool] = []  # in a worker: that it was told to end
RUNS = 3  # zlib's Z_RLE: a PNG in a quarter of the time, 0.8 % larger
# What decompress can write, with Pillow's options. All but JPEG keep every pixel.
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"compress_type": RUNS},
    "ppm": {},
    "bmp": {},
    "tif": {},
    "tiff": {},
    "webp": {"lossless": True},
    "jpg": {"quality": 95},
    "jpeg": {"quality": 95},
}

Record = dict[str, Any]
Callback = Callable[[str, float], None]


@dataclass(frozen=True)
class Job:
    """One picture: where it comes from and where it goes; `-` or `png:-` is a pipe."""

    source: str
    target: str


@dataclass(frozen=True)
class Plan:
    """The jobs of one call.

    Attributes:
        jobs: in the order of the inputs, folders sorted by name.
        folder: where a batch writes and keeps its manifest; None for a single picture.
    """

    jobs: tuple[Job, ...]
    folder: Path | None = None


@dataclass(frozen=True)
class Compress:
    """What `compress` does to one picture; the fields are those of `otcuda.codec.compress`.

    Attributes:
        measure: decode the file again and record PSNR and MS-SSIM.
        exists: what to do where the output is there: "refuse", "overwrite" or "skip".
    """

    bytes: int | None = None
    bpp: float | None = None
    quality: float | None = None
    mode: str = "coded"
    effort: int | None = None
    model: str | None = None
    measure: bool = False
    exists: str = "refuse"

    def __call__(self, job: Job, callback: Callback | None = None) -> Record:
        """Compress one picture; the record says what came out."""
        from otcuda import codec

        record = self.record(job)
        if _is_there(job.target, self.exists):
            return record | {"skipped": True}
        image = read_picture(job.source)
        model = _model(self.model)
        start = time.perf_counter()
        options = {"model": model, "mode": self.mode, "callback": callback, **self._options()}
        data = codec.compress(image, **options)
        record["ms"] = _ms(start)
        write_output(job.target, data, overwrite=self.exists == "overwrite")
        about = dataclasses.asdict(codec.info(data))
        record |= {key: about[key] for key in record.keys() & about.keys()}
        record["bytes"] = len(data)
        if self.measure:
            record |= _quality(image, codec.decompress(data, model=model))
        return record

    def record(self, job: Job) -> Record:
        """The record of a picture about which nothing is known yet."""
        keys = ("mode", "step", "grey", "model", "psnr", "ms_ssim")
        return _record("compress", job) | dict.fromkeys(keys)

    def _options(self) -> dict[str, Any]:
        names = ("bytes", "bpp", "quality", "effort")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Decompress:
    """What `decompress` does to one file.

    Attributes:
        realism: 0 for the least error, 1 for the most natural look.
        model: weights, None for the bundled ones.
        max_pixels: refuse larger pictures; None for the codec's own limit.
        exists: what to do where the output is there: "refuse", "overwrite" or "skip".
    """

    realism: float = 0.0
    model: str | None = None
    max_pixels: int | None = None
    exists: str = "refuse"

    def __call__(self, job: Job, callback: Callback | None = None) -> Record:
        """Decompress one file; the record says what came out."""
        from otcuda import codec

        record = self.record(job)
        save = picture_writer(job.target)
        if _is_there(job.target, self.exists):
            return record | {"skipped": True}
        data = read_input(job.source)
        options = {} if self.max_pixels is None else {"max_pixels": self.max_pixels}
        options |= {"model": _model(self.model), "callback": callback}
        start = time.perf_counter()
        image = codec.decompress(data, realism=self.realism, **options)
        record["ms"] = _ms(start)
        write_output(job.target, lambda file: save(image, file), self.exists == "overwrite")
        height, width = image.shape[:2]
        size = {"bytes": len(data), "bpp": 8 * len(data) / (height * width)}
        return record | {"width": width, "height": height} | size

    def record(self, job: Job) -> Record:
        """The record of a file about which nothing is known yet."""
        return _record("decompress", job) | {"realism": self.realism}


def describe(name: str) -> Record:
    """What an `.otc` file says about itself, as the record of `otcuda info`; nothing is decoded."""
    from otcuda import codec

    keys = ("width", "height", "bytes", "bpp", "header_bytes", "payload_bytes")
    keys += ("mode", "step", "grey", "model", "weights", "version")
    record = {"schema": SCHEMA, "command": "info", "file": name, "error": None}
    record |= dict.fromkeys(keys)
    try:
        data = read_input(name)
        record |= dataclasses.asdict(codec.info(data)) | {"bytes": len(data)}
        return record | {"weights": _weights_of(data)}
    except (Error, OSError, MemoryError) as error:
        return record | {"error": reason_of(error, name)}


def _weights_of(data: bytes) -> str | None:
    """Name of the packaged weights that wrote a file, or None where they are not here."""
    from otcuda.codec import families
    from otcuda.codec.bitstream import read_header

    with contextlib.suppress(ModelMismatchError):  # a package without weights
        found = families.load_models().find(read_header(data)[0])
        return None if found is None else found.name
    return None


class Work(Protocol):
    """What `run` does to each job: `Compress`, `Decompress`, or anything that can be pickled."""

    def __call__(self, job: Job, callback: Callback | None = None) -> Record:
        """Do it; what goes wrong is raised. The callback takes (what is being done, share done)."""

    def record(self, job: Job) -> Record:
        """The record of a job that is not done."""


# --- which file becomes which ---------------------------------------------------------------------


def plan(inputs: Sequence[str], output: str | None, accepts: frozenset[str], suffix: str) -> Plan:
    """The jobs for some files and folders.

    A single file goes to `output` (into it, where it is a folder or ends in `/`), or beside itself
    with another suffix; several, or a folder, go to the folder `output`, in the tree they came in.
    Where two would get one name, the old suffix is kept in it (`a.png.otc`).

    Args:
        inputs: files, folders, or one `-` or `png:-`.
        output: file, folder or pipe.
        accepts: suffixes of the files that are taken from a folder.
        suffix: of the outputs.

    Raises:
        ArgumentError: these do not fit together.
    """
    if "" in (*inputs, output):
        raise ArgumentError("a name is empty; is a variable of the shell not set?")
    for name in inputs:
        if is_pipe(name) and len(inputs) > 1:
            raise ArgumentError(f"{name} cannot be one of several inputs")
    if len(inputs) == 1 and not Path(inputs[0]).is_dir():
        return Plan((Job(inputs[0], _single_target(inputs[0], output, suffix)),))
    if output is None or is_pipe(output):
        raise ArgumentError("several inputs or a folder need -o FOLDER")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"{shown(output)} is a file; several inputs need a folder")
    found = [pair for name in inputs for pair in _below(Path(name), accepts)]
    if not found:
        names = ", ".join(shown(name) for name in inputs)
        raise ArgumentError(f"{names} holds no file called {' '.join(sorted(accepts))}")
    return Plan(tuple(_jobs(found, folder, suffix)), folder)


def shard(jobs: Sequence[Job], index: int, count: int) -> tuple[Job, ...]:
    """Every `count`-th job from job `index` on: `count` machines share the work, none talks."""
    return tuple(jobs[index::count])


def is_pipe(name: str) -> bool:
    """Whether a name means stdin or stdout: `-`, or `png:-` which also names the format."""
    return name == PIPE or name.endswith(":-")


def shown(name: str | os.PathLike[str]) -> str:
    """A file name on one line that any terminal prints, whatever bytes the disk holds."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _single_target(source: str, output: str | None, suffix: str) -> str:
    if output is None:
        return PIPE if is_pipe(source) else str(Path(source).with_suffix(suffix))
    if not is_pipe(output) and (output.endswith("/") or Path(output).is_dir()):
        if is_pipe(source):
            raise ArgumentError(f"{shown(output)} is a folder; name the file")
        return str(Path(output) / Path(source).with_suffix(suffix).name)
    return output


def _below(path: Path, accepts: frozenset[str]) -> list[tuple[Path, Path]]:
    """Files below a folder, or the file itself, each with its place in the output tree."""
    if not path.is_dir():
        return [(path, Path(path.name))]
    files = files_below(path, accepts)
    return [(file, file.relative_to(path)) for file in files]


def _jobs(found: Sequence[tuple[Path, Path]], folder: Path, suffix: str) -> Iterator[Job]:
    short = [place.with_suffix(suffix) for _, place in found]
    shared = {name for name, count in Counter(short).items() if count > 1}
    places = [
        place.with_name(place.name + suffix) if name in shared else name
        for (_, place), name in zip(found, short, strict=True)
    ]
    for name, count in Counter(places).items():
        if count > 1:
            raise ArgumentError(f"{count} inputs would become {shown(folder / name)}")
    for (source, _), place in zip(found, places, strict=True):
        yield Job(str(source), str(folder / place))


# --- running --------------------------------------------------------------------------------------


def run(jobs: Sequence[Job], work: Work, processes: int = 1) -> Iterator[Record]:
    """Do the jobs, and yield each record when it is done; a failure is a record, not an exception.

    Args:
        jobs: what to do.
        work: what to do to each.
        processes: how many to do at once; each has its own model in memory and its share of cores.

    Raises:
        Error: a worker process died, of lack of memory for instance.
    """
    if processes <= 1 or len(jobs) <= 1:
        yield from (attempt(work, job) for job in jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    spawn = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    pool = ProcessPoolExecutor(processes, spawn, _start_worker, (threads,))
    try:
        yield from _windowed(pool, jobs, work, 2 * processes)
        pool.shutdown()
    except BrokenProcessPool:
        raise Error(
            "a worker process died, perhaps of lack of memory; go on with -n and a smaller -j"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


def attempt(work: Work, job: Job) -> Record:
    """The record of one job, with `error` where it failed."""
    if _ended:  # the pool hands on what it caught, and would do what is queued
        os._exit(143)
    try:
        return work(job)
    except Exception as error:
        reason = reason_of(error, job.source)
        other = getattr(error, "filename", None)
        if other not in (None, job.source):
            reason = f"{shown(other)}: {reason}"
        if not isinstance(error, (Error, OSError, MemoryError)):
            reason = f"internal error: {type(error).__name__}: {reason}"
        return work.record(job) | {"error": reason}


def reason_of(error: BaseException, name: str | None = None) -> str:
    """What went wrong, on one line, without the name of the file at its head."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    reason = str(error).partition("\n")[0] or type(error).__name__
    if name is not None:
        for known in (shown(name), shown(Path(name).name)):
            reason = reason.removeprefix(f"{known}: ")
    return reason


def write_manifest_line(manifest: BinaryIO, record: Record) -> None:
    """One line a picture, on the disk at once: a killed run has told all that it did."""
    manifest.write(json.dumps(record).encode() + b"\n")
    manifest.flush()


def _windowed(
    pool: ProcessPoolExecutor, jobs: Sequence[Job], work: Work, width: int
) -> Iterator[Record]:
    from concurrent.futures import FIRST_COMPLETED, wait

    waiting = iter(jobs)
    running: set[Future] = set()
    while True:
        for job in itertools.islice(waiting, width - len(running)):
            with _uninterrupted():
                running.add(pool.submit(attempt, work, job))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits, in the workers that are started here for ever: theirs is SIGTERM.

    A worker that is half started when its parent gives up complains, or is missed and stays.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(threads: int) -> None:
    # Ctrl-C reaches the parent, which ends its workers by SIGTERM: temps are removed on the way out
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _ended.append(True) or sys.exit(143))
    for name in ("OTCUDA_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def sample(
    folder: Path, count: int, seed: int, realism: float, model: str | None, exists: str
) -> Iterator[Record]:
    """Draw pictures from noise into `sample-<seed>-<index>.png` and yield a record of each.

    A picture depends on weights, seed and index alone, not on how many are drawn.

    Args:
        folder: made if it is not there.
        count: how many.
        seed: of the noise.
        realism: share of the perceptual head, in [0, 1].
        model: weights, None for the bundled ones.
        exists: what to do where a file is there: "refuse", "overwrite" or "skip".

    Raises:
        FileExistsError: a file is there; nothing has been drawn.
        BackendError: the weights have no sampler.
    """
    paths = [folder / f"sample-{seed}-{k:04d}.png" for k in range(count)]
    skipped = [_is_there(str(path), exists) for path in paths]
    from otcuda.codec import load_model

    weights = load_model(model)
    tensors = weights.part("sampler.")
    if not tensors:
        raise BackendError(f"the weights {weights.digest[:8]} hold no sampler; train `all` stages")
    need_torch("otcuda sample")
    from otcuda.codec.sampling import LatentSampler, sample_pictures

    sampler = LatentSampler.from_tensors(tensors)
    for k, path in enumerate(paths):
        if skipped[k]:
            continue
        start = time.perf_counter()
        own_seed = (seed * 1_000_003 + k) % 2**63
        options = {"head": weights.head, "realism": realism}
        image = sample_pictures(weights.net, sampler, 1, own_seed, **options)[0]
        ms = _ms(start)
        save = picture_writer(str(path))
        write_output(str(path), functools.partial(save, image), exists == "overwrite")
        about = {"output": str(path), "width": image.shape[1], "height": image.shape[0]}
        about |= {"seed": seed, "index": k, "ms": ms}
        yield {"schema": SCHEMA, "command": "sample", **about}


# --- reading and writing --------------------------------------------------------------------------


def read_input(name: str) -> bytes:
    """All bytes of a file or of stdin.

    Raises:
        LimitError: more than 1 GiB.
        OSError: the file cannot be read.
    """
    if is_pipe(name):
        data = sys.stdin.buffer.read(LARGEST_INPUT_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(LARGEST_INPUT_BYTES + 1)
    if len(data) > LARGEST_INPUT_BYTES:
        raise LimitError("over 1 GiB; no picture that otcuda writes or reads is so large")
    return data


def read_picture(name: str) -> Any:
    """The pixels of a picture file or of stdin, uint8 [H, W, 3]."""
    from otcuda.evaluation.datasets import read_picture as read

    if not is_pipe(name):
        return read(Path(name))
    data = read_input(name)
    kind = name.removesuffix("-").removesuffix(":").upper()
    if kind:
        _check_kind(data, {"JPG": "JPEG", "TIF": "TIFF"}.get(kind, kind))
    return read(_Pipe(data))


def _check_kind(data: bytes, kind: str) -> None:
    from PIL import Image, UnidentifiedImageError

    Image.init()
    if kind not in Image.OPEN:
        raise ArgumentError(f"{kind.lower()}: is no picture format that Pillow reads")
    try:
        with Image.open(io.BytesIO(data), formats=[kind]):
            pass
    except UnidentifiedImageError:
        raise CorruptDataError(f"stdin is not a {kind} picture") from None


class _Pipe(os.PathLike):
    """Bytes that came through a pipe, opened and named as a path is."""

    name = "stdin"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __fspath__(self) -> str:
        return self.name

    def open(self, mode: str) -> BinaryIO:
        return io.BytesIO(self._data)


def picture_writer(target: str) -> Callable[[Any, BinaryIO], None]:
    """Writes pixels in the format that the name asks for: `x.webp`, `ppm:-`; `-` is PNG.

    Raises:
        ArgumentError: a format that is not one of `FORMATS`.
    """
    kind = target[:-2] if target.endswith(":-") else Path(target).suffix[1:]
    kind = "png" if target == PIPE else kind.lower()
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise ArgumentError(f"{shown(target)}: {kind or 'no suffix'!r} is none of {known}")

    def save(image: Any, file: BinaryIO) -> None:
        from PIL import Image

        # By its name Pillow loads this format alone, by `format=` all the usual ones.
        buffer = io.BytesIO()
        buffer.name = f"picture.{kind}"
        Image.fromarray(image).save(buffer, **FORMATS[kind])
        file.write(buffer.getbuffer())

    return save


def write_output(
    target: str, data: bytes | Callable[[BinaryIO], object], overwrite: bool = False
) -> None:
    """Bytes to a file, whole or not at all, or to stdout."""
    if not is_pipe(target):
        path = Path(target)
        make_folder(path.parent)
        atomic_write(path, data, overwrite=overwrite)
        return
    if callable(data):  # a pipe cannot seek, as some formats must
        buffer = io.BytesIO()
        data(buffer)
        data = buffer.getvalue()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _is_there(target: str, exists: str) -> bool:
    """Whether to skip; refuses before the work is done, not after."""
    if exists == "overwrite" or is_pipe(target) or not Path(target).is_file():
        return False
    if exists == "skip":
        return True
    raise FileExistsError(errno.EEXIST, "exists already; -f overwrites it, -n skips it", target)


@functools.lru_cache(maxsize=2)
def _model(path: str | None) -> Any:
    """What `--model` names: a file, a folder of them, or nothing, which is those of the package."""
    from otcuda import codec

    if path is None:
        return None
    return codec.load_models(path) if Path(path).is_dir() else codec.load_model(path)


def _quality(image: Any, decoded: Any) -> Record:
    from otcuda.evaluation.metrics import MS_SSIM_MIN_SIDE, ms_ssim, psnr

    large = min(image.shape[:2]) >= MS_SSIM_MIN_SIDE
    error = psnr(image, decoded)
    return {
        "psnr": error if math.isfinite(error) else None,  # JSON knows no infinity
        "ms_ssim": ms_ssim(image, decoded) if large else None,
    }


def _record(command: str, job: Job) -> Record:
    record = {"schema": SCHEMA, "command": command, "file": job.source, "output": job.target}
    record |= {"error": None, "skipped": False}
    return record | dict.fromkeys(("width", "height", "bytes", "bpp", "ms"))


def _ms(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 3)

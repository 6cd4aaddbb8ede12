# SPDX-License-Identifier: Apache-2.0
"""The only door to the disk for results: a file is there whole, or not at all; and folders."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

Content = bytes | bytearray | memoryview | Callable[[BinaryIO], object]
_TEMP_NAME = re.compile(r"^\..*\.(\d+)\.tmp$", re.DOTALL)
# On a shared disk the writer may live on another machine, where it looks dead: spare fresh temps.
_SWEEP_AFTER_SECONDS = 60.0


def atomic_write(
    path: str | os.PathLike[str],
    data: Content,
    *,
    overwrite: bool = True,
) -> None:
    """Write a file that is whole or absent, whatever happens in between.

    The bytes go to `.NAME.PID.tmp` beside it, are forced to disk and renamed; the folder is forced
    too. Temps that dead processes left in the folder are removed. A symbolic link is followed, the
    mode of an existing file is kept. Devices and pipes are written directly.

    Args:
        path: the file; its folder must exist.
        data: its bytes, or a function that writes them to the binary file it is given.
        overwrite: False raises FileExistsError where `path` exists, even if it appears meanwhile.

    Raises:
        OSError: the disk said no; `path` is as it was, and what the error names.
    """
    target = Path(os.path.realpath(path))
    try:
        _write_whole(target, data, overwrite)
    except OSError as error:
        name = error.filename or ""
        if error.errno and (not name or _TEMP_NAME.match(Path(os.fsdecode(name)).name)):
            error.filename, error.filename2 = os.fsdecode(path), None
        raise


def make_folder(path: Path) -> None:
    """A folder and those above it, where they are not there yet.

    Raises:
        NotADirectoryError: a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", error.filename) from None


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files of some suffixes in a folder and those in it, in order; what begins with a dot is none.

    What cannot be looked at is in the list, so that it is named where it is opened: broken links,
    and folders that cannot be read. Devices and pipes are not.

    Raises:
        OSError: the folder itself cannot be read.
    """
    files: list[Path] = []

    def refused(error: OSError) -> None:
        if error.filename == str(folder):
            raise error
        files.append(Path(error.filename))

    for place, _, names in os.walk(str(folder), onerror=refused):
        found = (Path(place, name) for name in names if not name.startswith("."))
        files += [file for file in found if file.suffix.lower() in suffixes and _is_plain(file)]
    return sorted(files)


def _is_plain(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return True


def _write_whole(target: Path, data: Content, overwrite: bool) -> None:
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder, not a file")
        with target.open("wb") as file:
            _write(file, data)
        return
    if not overwrite and target.exists():
        raise FileExistsError(f"{target} exists already")
    sweep_temps(target.parent)
    temp: Path | None
    file, temp = _open_temp(target)
    try:
        with file:
            _write(file, data)
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            os.fsync(file.fileno())
        if overwrite:
            temp.replace(target)
            temp = None  # its name may be another thread's by now
        else:
            target.hardlink_to(temp)  # unlike rename, refuses to replace
    finally:
        if temp is not None:
            with contextlib.suppress(FileNotFoundError):
                temp.unlink()
    _sync_folder(target.parent)


def sweep_temps(folder: Path) -> None:
    """Remove temps of `atomic_write` that are older than a minute and whose process is dead."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            match = _TEMP_NAME.match(entry.name)
            if match is None or _is_alive(int(match[1])):
                continue
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _SWEEP_AFTER_SECONDS:
                    Path(entry.path).unlink()


def _write(file: BinaryIO, data: Content) -> None:
    if callable(data):
        data(file)
    else:
        file.write(data)


def _open_temp(target: Path) -> tuple[BinaryIO, Path]:
    # 255 bytes is the longest name; two threads writing the same file need two temps.
    stem = os.fsdecode(os.fsencode(target.name)[:200])
    for attempt in range(1000):
        mark = f"~{attempt}" if attempt else ""
        temp = target.with_name(f".{stem}{mark}.{os.getpid()}.tmp")
        with contextlib.suppress(FileExistsError):
            return temp.open("xb"), temp
    raise FileExistsError(f"no free temporary name beside {target}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

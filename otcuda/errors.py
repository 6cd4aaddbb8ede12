# SPDX-License-Identifier: Apache-2.0
"""What a caller may catch: each type is an `otcuda.Error` and the builtin that fits."""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """Base of every error that otcuda raises on purpose."""


class ShapeError(Error, ValueError):
    """Shapes that do not fit together."""


class ArgumentError(Error, ValueError):
    """A value, dtype or layout that is not allowed."""


class DeviceError(Error, RuntimeError):
    """Tensors on the wrong device, or on different ones."""


class BackendError(Error, RuntimeError):
    """An instruction set, kernel or optional package that is not there."""


class CorruptDataError(Error, ValueError):
    """Bytes that no encoder of ours wrote."""


class ModelMismatchError(Error, ValueError):
    """Bytes or weights of another model."""


class CorruptHeaderError(CorruptDataError):
    """The head of a message is damaged: nothing behind it was looked at."""


class TableMismatchError(ModelMismatchError):
    """A message of other tables."""


class IndexMismatchError(ModelMismatchError):
    """A message whose tables were chosen by another index: a model that computes it differs."""


class BudgetError(Error, ValueError):
    """A size budget that cannot be met."""


class RankError(Error, RuntimeError):
    """A process of a distributed run died, fell behind the timeout, or has other data."""


class LimitError(Error, MemoryError):
    """Over the memory or pixel limit, or out of memory."""


class Notice(UserWarning):
    """What was asked for cannot be had, and something else is done."""


class Interrupted(Error):  # noqa: N818 - nothing went wrong
    """A callback asked a long operation to stop."""


def _shape_text(array: Any) -> str:
    return "[" + ", ".join(str(int(size)) for size in array.shape) + "]"


def check_shapes(op: str, **arrays: tuple[Any, str]) -> dict[str, int]:
    """Sizes by letter, from arguments such as `x=(x, "B D"), h=(h, "N")`.

    Args:
        op: name of the function, for the message.
        arrays: the array and its sizes, one letter each; an array of None is left out.

    Returns:
        The size behind each letter.

    Raises:
        ShapeError: wrong number of dimensions, or two arrays disagree about a letter.

    >>> import numpy as np
    >>> check_shapes("op", x=(np.zeros((2, 3)), "B D"), y=(np.zeros((5, 3)), "N D"))
    {'B': 2, 'D': 3, 'N': 5}
    """
    given = {name: pair for name, pair in arrays.items() if pair[0] is not None}
    sizes: dict[str, int] = {}
    for array, letters in given.values():
        names = letters.split()
        if len(names) != len(array.shape) or any(
            sizes.setdefault(letter, size) != size
            for letter, size in zip(names, array.shape, strict=True)
        ):
            takes = ", ".join(f"{name} [{', '.join(p[1].split())}]" for name, p in given.items())
            got = ", ".join(f"{name} {_shape_text(p[0])}" for name, p in given.items())
            raise ShapeError(f"{op} takes {takes}; got {got}")
    return sizes

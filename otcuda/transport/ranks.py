# SPDX-License-Identifier: Apache-2.0
"""Processes that work on one problem: what they tell each other, over torch.distributed.

Only sums and maxima of integers and copies of rank 0's bytes: results that do not depend on the
order in which ranks are added up, so that any number of ranks gives the bits of one.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from otcuda.errors import ArgumentError, RankError


class Ranks:
    """The processes of a group.

    Args:
        group: of torch.distributed; None is all processes.

    Attributes:
        rank, size: number of this process, and of all.

    Raises:
        ArgumentError: torch.distributed is not initialised.
    """

    def __init__(self, group: Any = None):
        try:
            import torch
            import torch.distributed as dist
        except ImportError as error:
            raise ArgumentError("distributed: torch is not installed") from error
        if not (dist.is_available() and dist.is_initialized()):
            raise ArgumentError(
                "distributed: torch.distributed is not initialised; call init_process_group, and "
                "start the processes with torchrun"
            )
        self._torch, self._dist, self._group = torch, dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._first = dist.get_global_rank(group, 0) if group is not None else 0
        # NCCL moves what lies on its cards.
        nccl = dist.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if nccl else None

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """Sum over the ranks of an array of int64."""
        return self._reduce(numbers, self._dist.ReduceOp.SUM)

    def max(self, numbers: np.ndarray) -> np.ndarray:
        """Largest of the ranks, entry by entry, of an array of int64."""
        return self._reduce(numbers, self._dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank."""
        return bool(self.max(np.array([flag], np.int64))[0])

    def from_first(self, array: np.ndarray) -> np.ndarray:
        """Rank 0's numbers, in an array of the shape and dtype that all ranks know."""
        sent = np.array(array, order="C")
        raw = sent.reshape(-1).view(np.uint8)
        self._call("broadcast", raw, lambda t: self._dist.broadcast(t, self._first, self._group))
        return sent

    def bytes_from_first(self, data: bytes | None) -> bytes | None:
        """Rank 0's bytes, or None where it has none."""
        length = -1 if data is None else len(data)
        length = int(self.from_first(np.array([length], np.int64))[0])
        if length < 0:
            return None
        held = np.zeros(length, np.uint8)
        if self.rank == 0:
            held[:] = np.frombuffer(data, np.uint8)
        return self.from_first(held).tobytes()

    def check_same(self, what: str, *arrays: Any) -> None:
        """Raises RankError where ranks differ in the bytes of arrays, or in what repr says."""
        found = hashlib.blake2b(digest_size=8)
        for array in arrays:
            is_array = isinstance(array, np.ndarray)
            found.update(np.ascontiguousarray(array).data if is_array else repr(array).encode())
        word = int.from_bytes(found.digest(), "little") >> 1
        high, low = self.max(np.array([word, -word], np.int64))
        if high != -low:
            raise RankError(
                f"distributed: ranks differ in {what}; every rank must be given the same"
            )

    def _reduce(self, numbers: np.ndarray, how: Any) -> np.ndarray:
        numbers = np.ascontiguousarray(numbers)
        self._call(
            "all_reduce", numbers, lambda t: self._dist.all_reduce(t, how, group=self._group)
        )
        return numbers

    def _call(self, name: str, array: np.ndarray, call: Any) -> None:
        """Runs a collective on an array, which is changed."""
        tensor = self._torch.from_numpy(array)
        moved = tensor if self._device is None else tensor.to(self._device)
        try:
            call(moved)
            if self._device is not None:
                tensor.copy_(moved)
        except RuntimeError as error:
            raise RankError(
                f"distributed: rank {self.rank} of {self.size} lost the others in {name}; start "
                f"all again, a checkpoint goes on from its last writing ({error})"
            ) from error

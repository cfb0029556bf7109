"""The processes that train together, and what they tell one another. A process of its own tells nobody anything."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")

ALONE = "1"
"""processes, where no launcher says how many"""


class Ranks:
    """This process among all. Words go through the host's memory, so that no GPU is waited for."""

    def __init__(self, rank: int = 0, count: int = 1, *, size: int = 1) -> None:
        self.rank, self.count, self.size = rank, count, size
        self.waited = 0.0
        """seconds in which this process waited for what others had to say"""

    @classmethod
    def open(cls, device: torch.device, *, timeout: timedelta) -> "Ranks":
        """Meet the others that a launcher (torchrun, accelerate, deepspeed …) has started, by the variables it sets.

        Raises `torch.distributed.DistError` where they do not come within the timeout.
        """
        if int(os.environ.get("WORLD_SIZE", ALONE)) == 1:
            return cls()
        if not distributed.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(
                backend, timeout=timeout, device_id=device if device.type == "cuda" else None
            )
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether it is this process that writes files and speaks for all."""
        return self.rank == 0

    def teams(self, size: int) -> "Ranks":
        """The same processes, of which so many at a time have the same share."""
        return Ranks(self.rank, self.count, size=size)

    @property
    def number(self) -> int:
        """Which share is this process's."""
        return self.rank // self.size

    @property
    def num_shares(self) -> int:
        """Shares that are made of what all have."""
        return self.count // self.size

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of what all have."""
        return list(items[self.number :: self.num_shares])

    def dealt(self, parts: Sequence[Sequence[T]]) -> list[T]:
        """The whole again, from every process's `share` of it."""
        whole: list[T | None] = [None] * sum(len(part) for part in parts[:: self.size])
        for number, part in enumerate(parts[:: self.size]):
            whole[number :: self.num_shares] = part
        return whole  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """What every process has, in their order. Values travel pickled, among processes of one run only."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        with self._waiting():
            distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def first(self, value: T) -> T:
        """What the leading process has."""
        return self.gather(value)[0]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all processes, in place; those of a GPU on it, and nobody waits for the result."""
        if self.count == 1:
            return
        with self._waiting():
            for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()  # type: ignore[union-attr]

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    def close(self) -> None:
        """Part from the others."""
        if distributed.is_initialized():
            distributed.destroy_process_group()


def local_rank() -> int:
    """This process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))

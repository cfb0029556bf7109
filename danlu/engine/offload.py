"""What a forward keeps for its backward, moved to pinned memory of the host and back while the GPU computes."""

import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

SMALLEST = 1 << 20
"""bytes from which a tensor is worth the way"""
AHEAD = 4
"""tensors that are fetched before they are asked for, while the ones before them are used"""


class Parked:
    """One tensor that is away. Without data there is nothing to copy, only a shape to come back with."""

    def __init__(self, tensor: Tensor, stream: torch.cuda.Stream | None) -> None:
        self.shape, self.dtype, self.device, self.stream = tensor.shape, tensor.dtype, tensor.device, stream
        self.host: Tensor | None = None
        self.back: Tensor | None = None
        if tensor.is_meta:
            return
        self.host = torch.empty_like(tensor, device="cpu", pin_memory=stream is not None)
        if stream is None:
            self.host.copy_(tensor)
            return
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            self.host.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)  # its memory is not given to another before the copy is made

    def fetch(self) -> None:
        """Begin the way back."""
        if self.back is not None:
            return
        if self.host is None:
            self.back = torch.empty(self.shape, dtype=self.dtype, device="meta")
        elif self.stream is None:
            self.back = self.host
        else:
            with torch.cuda.stream(self.stream):
                self.back = self.host.to(self.device, non_blocking=True)

    def arrive(self) -> Tensor:
        """The tensor, where it was."""
        self.fetch()
        assert self.back is not None
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            self.back.record_stream(current)
        return self.back


class Offload(AbstractContextManager[None]):
    """`with Offload(weights, device):` around a forward; its backward comes later and asks in the opposite order."""

    def __init__(self, weights: Iterable[Tensor], device: torch.device, *, smallest: int = SMALLEST) -> None:
        self.smallest = smallest
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._weights = {weight.untyped_storage()._cdata for weight in weights}
        self._parked: list[weakref.ref[Parked]] = []
        self._known: dict[int, tuple[Any, dict[Any, weakref.ref[Parked]]]] = {}
        self._hooks: Any = None

    def __enter__(self) -> None:
        self._parked, self._known = [], {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.park, self.arrive)
        self._hooks.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def park(self, tensor: Tensor) -> Tensor | tuple[int, Parked]:
        """Send a tensor away, once for all that keep it; weights, small ones and repeated values stay."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._weights or tensor.nbytes < self.smallest or 0 in tensor.stride():
            return tensor
        place = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version)
        alive, known = self._known.get(storage._cdata, (lambda: None, {}))
        if alive() is None:  # another tensor has been given the same memory since
            known = {}
            self._known[storage._cdata] = weakref.ref(storage), known
        found = known[place]() if place in known else None
        if found is None:
            found = Parked(tensor, self.stream)
            known[place] = weakref.ref(found)
            self._parked.append(weakref.ref(found))
        return len(self._parked) - 1, found

    def arrive(self, kept: Tensor | tuple[int, Parked]) -> Tensor:
        """Bring it back, and begin to fetch those that were kept before it."""
        if isinstance(kept, Tensor):
            return kept
        number, parked = kept
        tensor = parked.arrive()
        if self.stream is not None:
            for reference in self._parked[max(0, number - AHEAD) : number]:
                if (other := reference()) is not None:
                    other.fetch()
        return tensor

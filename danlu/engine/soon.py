"""Numbers that a GPU is still computing: asked for now, read later, without waiting for what was queued after them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from danlu.objectives.base import Loss


class Soon:
    """Values of a few scalars, in float64."""

    def __init__(self, values: list[Tensor]) -> None:
        widest = torch.float32 if values[0].device.type == "mps" else torch.float64  # Apple's GPUs have no other
        stacked = torch.stack([value.detach().to(widest) for value in values])
        self._done: torch.cuda.Event | None = None
        self._kept = stacked
        if stacked.is_cuda:
            self._kept = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
            self._kept.copy_(stacked, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()

    def read(self) -> list[float]:
        """Wait until they are there."""
        if self._done is not None:
            self._done.synchronize()
        return self._kept.tolist()


@dataclass(slots=True)
class LossNumbers:
    """A loss as numbers: see `Loss`."""

    total: float
    count: float
    metrics: dict[str, tuple[float, float]]


class LossSoon:
    """The numbers of a loss; of its graph nothing is kept."""

    def __init__(self, loss: Loss) -> None:
        self.count = loss.count
        self._counts = {name: count for name, (_, count) in loss.metrics.items()}
        totals = [torch.as_tensor(total, device=loss.total.device) for total, _ in loss.metrics.values()]
        self._values = Soon([loss.total, *totals])

    def read(self) -> LossNumbers:
        """Wait until they are there."""
        total, *totals = self._values.read()
        pairs = zip(self._counts.items(), totals, strict=True)
        return LossNumbers(total, self.count, {name: (total, count) for (name, count), total in pairs})

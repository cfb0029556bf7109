"""What a run holds all the time: weights, what learns of them in fp32, gradients and the optimiser's state."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch

from danlu.engine.optimizers.base import Optimizer
from danlu.models.blocks import blocks_of
from danlu.models.masters import Masters
from danlu.models.outline import Outline

Parallel = Literal["ddp", "zero1", "zero2", "zero3"]
Moved = Literal["none", "optimizer", "all"]


@dataclass(frozen=True)
class Holdings:
    """Bytes on one device. `learning` are the weights that learn as the model computes with them, `gathered` is what
    one device holds of the others' weights at a time, when weights are dealt out."""

    weights: float
    learning: float
    masters: float
    gradients: float
    optimizer: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.learning + self.masters + self.gradients + self.optimizer + self.gathered

    def dealt(self, parallel: Parallel, ranks: int, offload: Moved, largest: float) -> "Holdings":
        """Each device's share; `largest` are the weights that must be together at a time."""
        stage = 0 if parallel == "ddp" else int(parallel[-1])
        parts = {"masters": 1, "optimizer": 1, "gradients": 2, "learning": 3, "weights": 3}
        share = {name: getattr(self, name) / (ranks if stage >= first else 1) for name, first in parts.items()}
        moved = {"none": (), "optimizer": ("masters", "optimizer"), "all": tuple(parts)}[offload]
        kept = {name: 0.0 if name in moved else value for name, value in share.items()}
        apart = stage == 3 or offload == "all"
        return replace(self, **kept, gathered=largest if apart else 0.0)


def holdings(models: dict[str, Outline], masters: Masters, optimizer: Optimizer, beside: float = 0.0) -> Holdings:
    """Count all memory once, however many weights lie in it; the masters have brought the models to their dtype.

    `beside` are bytes of weights that no parameter holds.
    """
    everything = [each for model in models.values() for each in (*model.parameters(), *model.buffers())]
    frozen, learning = {}, {}
    for each in everything:
        (learning if each.requires_grad else frozen)[place(each)] = each
    own = {**frozen, **learning}
    fp32 = {place(each): each for each in masters.parameters.values() if place(each) not in own}
    return Holdings(
        weights=stored_bytes(frozen.values()) + beside,
        learning=stored_bytes(each for key, each in learning.items() if key not in frozen),
        masters=stored_bytes(fp32.values()),
        gradients=num_bytes(masters.parameters.values()),
        optimizer=sum(optimizer.state_bytes(*named) for named in masters.parameters.items()),
    )


def largest_part(policy: Outline) -> float:
    """Weights that a device must have together to compute: two blocks, one of them on its way, or the output layer."""
    _, blocks = blocks_of(policy.inner)
    sizes = [num_bytes((*block.parameters(), *block.buffers())) for block in blocks]
    return max(2 * max(sizes), num_bytes(policy.head.module.parameters()))


def num_bytes(tensors: Iterable[torch.Tensor]) -> float:
    """What tensors hold together."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def place(tensor: torch.Tensor) -> int:
    """The memory that a tensor lies in."""
    return tensor.untyped_storage()._cdata


def stored_bytes(tensors: Iterable[torch.Tensor]) -> float:
    """The memory that tensors of different places lie in, whole."""
    return float(sum(tensor.untyped_storage().nbytes() for tensor in tensors))

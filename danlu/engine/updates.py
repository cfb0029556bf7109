"""How gradients that the masters hold become new weights: by any torch optimiser, or by one that does it all itself."""

from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from danlu.engine.one_launch_adamw import OneLaunchAdamW
from danlu.models.masters import Masters


class Updates(Protocol):
    """One update with gradients times a factor []; `leaves_bad_steps_out`: one by no number changes nothing, so that
    nobody has to look before it."""

    leaves_bad_steps_out: bool

    def update(self, factor: Tensor) -> None:
        """Masters, and the weights that the models compute with; the gradients are gone then."""
        ...


class StepByStep:
    """Scale, update, round for the model: by torch's own optimisers."""

    leaves_bad_steps_out = False

    def __init__(self, optimizer: Optimizer, masters: Masters) -> None:
        self.optimizer, self.masters = optimizer, masters

    def update(self, factor: Tensor) -> None:
        """See `Updates`."""
        torch._foreach_mul_(self.masters.gradients(), factor)
        self.optimizer.step()
        self.masters.clear()
        self.masters.publish()


class InOneLaunch:
    """The same in the optimiser's own pass over each weight."""

    leaves_bad_steps_out = True

    def __init__(self, optimizer: OneLaunchAdamW, masters: Masters) -> None:
        self.optimizer, self.masters = optimizer, masters
        optimizer.copies = masters.copies

    def update(self, factor: Tensor) -> None:
        """See `Updates`."""
        self.optimizer.factor = factor
        self.optimizer.step()
        self.masters.clear()


def updates_of(optimizer: Optimizer, masters: Masters) -> Updates:
    """The way of an optimiser."""
    return (InOneLaunch if isinstance(optimizer, OneLaunchAdamW) else StepByStep)(optimizer, masters)  # type: ignore[arg-type]

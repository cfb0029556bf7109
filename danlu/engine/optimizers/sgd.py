"""Stochastic gradient descent: no state without momentum, so it fits where nothing else does."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from torch.optim import SGD as TorchSGD
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Groups, Optimizer


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """how slowly the mean of the gradients forgets; 0 keeps none"""
    nesterov: bool = False
    """look ahead along the momentum"""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum, so it needs one, such as momentum: 0.9")
        return self

    @property
    def bytes_per_weight(self) -> float:
        return 4.0 if self.momentum else 0.0

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchSGD(groups, momentum=self.momentum, nesterov=self.nesterov)

"""Stochastic gradient descent: no state without momentum, so it fits where nothing else does."""

from typing import Annotated

from pydantic import Field
from torch.optim import SGD as TorchSGD
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Groups, Optimizer


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """how slowly the mean of the gradients forgets; 0 keeps none"""
    nesterov: bool = False
    """look ahead along the momentum"""

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchSGD(groups, momentum=self.momentum, nesterov=self.nesterov)

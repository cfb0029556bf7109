"""Lion, steps of one size in the direction of the mean gradient's sign: https://arxiv.org/abs/2302.06675"""

import torch
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups, Optimizer


class Lion(Optimizer):
    """Steps by the sign of the mean gradient: half of AdamW's memory; wants a rate 3 to 10 times lower."""

    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """how much of the mean is in a step, and how slowly it forgets"""

    @property
    def bytes_per_weight(self) -> float:
        return 4.0

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchLion(groups, {"betas": self.betas})


class TorchLion(TorchOptimizer):
    """w -= lr (sign(b1 m + (1 - b1) g) + decay w), then m = b2 m + (1 - b2) g"""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            lr, (now, later) = group["lr"], group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.add_(state["mean"].lerp(parameter.grad, 1 - now).sign_(), alpha=-lr)
                state["mean"].lerp_(parameter.grad, 1 - later)

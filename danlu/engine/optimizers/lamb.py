"""LAMB, Adam whose step is scaled to the norm of the weights: https://arxiv.org/abs/1904.00962

As NVIDIA's fused LAMB does it: gradients are divided by max(1, norm of all / max_grad_norm) first, which is what the
engine's `max_grad_norm` does, once; means are corrected for their start; weight decay is part of the step whose norm is
taken; a ratio with a norm of 0 in it is 1, and no norm is clamped.
"""

from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups, Optimizer


class LAMB(Optimizer):
    """Adam whose step for each tensor is scaled to the tensor's norm, for very large batches."""

    by_rows: ClassVar[bool] = False

    weight_decay: NonNegativeFloat = 0.01
    """how strongly weights are pulled to zero; biases and norms never are"""
    nvlamb: bool = False
    """scale the step of every tensor, not only of those that are decayed"""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """how slowly the means of the gradient and of its square forget"""
    eps: PositiveFloat = 1e-6
    """added to the root of the squares"""

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchLAMB(groups, self.settings())

    def settings(self) -> dict[str, Any]:
        """What each group is given."""
        return {"betas": self.betas, "eps": self.eps, "nvlamb": self.nvlamb}


class TorchLAMB(TorchOptimizer):
    """u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w;  w -= lr (|w| / |u|) u"""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = 0
            self.keep(state, torch.zeros_like(weight), torch.zeros_like(weight))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean, square = self.means(state)
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        step = (mean / (1 - beta1 ** state["step"])).div_(root).add_(weight, alpha=group["weight_decay"])
        self.keep(state, mean, square)
        if group["nvlamb"] or group["weight_decay"] != 0:
            of_weight, of_step = weight.norm(), step.norm()
            step *= torch.where((of_weight > 0) & (of_step > 0), of_weight / of_step, 1.0)
        weight.sub_(step, alpha=group["lr"])

    def means(self, state: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The means of the gradient and of its square, fp32."""
        return state["mean"], state["square"]

    def keep(self, state: dict[str, Any], mean: Tensor, square: Tensor) -> None:
        """Store them."""
        state["mean"], state["square"] = mean, square

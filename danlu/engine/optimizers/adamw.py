"""Adam with decoupled weight decay: https://arxiv.org/abs/1711.05101"""

from pydantic import PositiveFloat
from torch.optim import AdamW as TorchAdamW
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.one_launch_adamw import OneLaunchAdamW
from danlu.engine.optimizers.base import Beta, Groups, Optimizer
from danlu.models.kernels.gpu import runs_kernels


class AdamW(Optimizer):
    """Adam with decoupled weight decay, in one fused pass over the parameters."""

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """how slowly the means of the gradient and of its square forget"""
    eps: PositiveFloat = 1e-8
    """added to the root of the squares"""

    def build(self, groups: Groups) -> TorchOptimizer:
        if all(runs_kernels(parameter) for group in groups for parameter in group["params"]):
            return OneLaunchAdamW(groups, self.betas, self.eps)
        return TorchAdamW(groups, betas=self.betas, eps=self.eps, fused=True)

"""AdamW with states of 32 bits in paged memory: https://arxiv.org/abs/2305.14314"""

from bitsandbytes.optim import AdamW32bit
from pydantic import PositiveFloat
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups
from danlu.engine.paged_states import PagedOptimizer


class PagedAdamW(PagedOptimizer):
    """AdamW whose states go to the host when the GPU is full."""

    paged: bool = True
    """keep the states where the GPU's driver moves them to the host when the GPU is full; needs a CUDA GPU"""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """how slowly the means of the gradient and of its square forget"""
    eps: PositiveFloat = 1e-8
    """added to the root of the squares"""

    def build(self, groups: Groups) -> TorchOptimizer:
        return AdamW32bit(groups, betas=self.betas, eps=self.eps, is_paged=self.paged)

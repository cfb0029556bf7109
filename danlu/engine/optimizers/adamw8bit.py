"""AdamW with states of 8 bits: https://arxiv.org/abs/2110.02861"""

from typing import ClassVar

from bitsandbytes.optim import AdamW8bit as TorchAdamW8bit
from pydantic import PositiveFloat
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups
from danlu.engine.paged_states import PagedOptimizer


class AdamW8bit(PagedOptimizer):
    """AdamW that keeps its two means in 8 bits each, a quarter of their memory; small tensors keep 32."""

    by_rows: ClassVar[bool] = False

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """how slowly the means of the gradient and of its square forget"""
    eps: PositiveFloat = 1e-8
    """added to the root of the squares"""

    @property
    def bytes_per_weight(self) -> float:
        return 2 * (1 + 4 / 256)  # a code, and a scale for 256 of them

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchAdamW8bit(groups, betas=self.betas, eps=self.eps, is_paged=self.paged)

"""Lion with a state of 8 bits."""

from typing import ClassVar

from bitsandbytes.optim import Lion8bit as TorchLion8bit
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Beta, Groups
from danlu.engine.paged_states import PagedOptimizer


class Lion8bit(PagedOptimizer):
    """Lion that keeps its one mean in 8 bits: an eighth of AdamW's memory; small tensors keep 32."""

    by_rows: ClassVar[bool] = False

    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """how much of the mean is in a step, and how slowly it forgets"""

    @property
    def bytes_per_weight(self) -> float:
        return 1 * (1 + 4 / 256)  # a code, and a scale for 256 of them

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchLion8bit(groups, betas=self.betas, is_paged=self.paged)

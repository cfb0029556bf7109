"""Clipped importance sampling weights: no token's gradient is cut off. https://arxiv.org/abs/2506.13585"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from danlu.objectives._groups import EPS, ahead, deviations
from danlu.objectives._held import Held


class CISPO(Held):
    """-ratio A log p, where the ratio is clipped from above and has no gradient; every token counts the same."""

    clip_high: Annotated[float, Field(gt=0)] = 4.0
    """how far above 1 a ratio counts"""

    def advantages(self, rewards_NG: Tensor) -> Tensor:
        """[N,G]"""
        return ahead(rewards_NG) / (deviations(rewards_NG) + EPS)

    def losses(self, log_ratios: Tensor, advantages: Tensor, logps: Tensor) -> Tensor:
        """[T]"""
        return -log_ratios.exp().clamp(max=1 + self.clip_high).detach() * advantages * logps

"""Decoupled clip: https://arxiv.org/abs/2503.14476. Its soft punishment of long answers is the reward `length`."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from danlu.objectives._groups import EPS, ahead, deviations
from danlu.objectives._held import Held


class DAPO(Held):
    """GRPO's advantages, more room above than below, and every token of the step counts the same."""

    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """how far above 1 a ratio counts"""

    def advantages(self, rewards_NG: Tensor) -> Tensor:
        """[N,G]"""
        return ahead(rewards_NG) / (deviations(rewards_NG) + EPS)

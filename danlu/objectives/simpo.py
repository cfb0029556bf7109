"""Simple Preference Optimization, without a reference: https://arxiv.org/abs/2405.14734"""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from danlu.objectives._paired import ReferenceFree


class SimPO(ReferenceFree):
    """Rewards are mean log-probabilities, and the better answer's has to be ahead by a margin."""

    beta: PositiveFloat = 2.0
    """what rewards are multiplied by"""
    gamma: NonNegativeFloat = 1.0
    """the margin"""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """share of the pairs that are taken to be the other way round"""
    length_normalized: bool = True
    """means over an answer's tokens, which is what SimPO is, instead of sums"""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P]"""
        ahead = better - worse - self.gamma
        return -(1 - self.label_smoothing) * logsigmoid(ahead) - self.label_smoothing * logsigmoid(-ahead)

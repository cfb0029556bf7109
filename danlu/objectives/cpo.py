"""Contrastive Preference Optimization, without a reference: https://arxiv.org/abs/2401.08417"""

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from danlu.objectives._paired import ReferenceFree


class CPO(ReferenceFree):
    """DPO's loss with a uniform reference, and the likelihood of the better answers."""

    sft_weight: NonNegativeFloat = 1.0
    """weight of the better answers' negative log-likelihood, each divided by its tokens"""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """share of the pairs that are taken to be the other way round"""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P]"""
        ahead = better - worse
        return -(1 - self.label_smoothing) * logsigmoid(ahead) - self.label_smoothing * logsigmoid(-ahead)

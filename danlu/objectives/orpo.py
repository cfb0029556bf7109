"""Odds Ratio Preference Optimization, without a reference: https://arxiv.org/abs/2403.07691"""

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from danlu.objectives._paired import ReferenceFree

SURE = -1e-6
"""a mean log-probability above this has odds that fp32 does not hold"""


class ORPO(ReferenceFree):
    """The likelihood of the better answers, and the odds of writing them instead of the worse ones."""

    sft_weight: NonNegativeFloat = 1.0
    """weight of the better answers' negative log-likelihood, each divided by its tokens"""
    length_normalized: bool = True
    """means over an answer's tokens, as in the paper, instead of sums"""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P] rewards are beta times log p, so the odds are those of exp(reward / beta)."""
        return -self.beta * logsigmoid(log_odds(better / self.beta) - log_odds(worse / self.beta))


def log_odds(logps: Tensor) -> Tensor:
    """log(p / (1 - p))"""
    logps = logps.clamp(max=SURE)
    return logps - (-logps.exp()).log1p()

"""Robust DPO, for pairs of which some are the wrong way round: https://arxiv.org/abs/2403.00409"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from danlu.objectives._paired import PairedToReference


class Robust(PairedToReference):
    """DPO's loss without the bias that flipped pairs give it."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """share of the pairs that are the wrong way round"""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P]"""
        ahead, flipped = better - worse, self.label_smoothing
        return (-(1 - flipped) * logsigmoid(ahead) + flipped * logsigmoid(-ahead)) / (1 - 2 * flipped)

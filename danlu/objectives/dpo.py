"""Direct Preference Optimization: https://arxiv.org/abs/2305.18290"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from danlu.objectives._paired import PairedToReference


class DPO(PairedToReference):
    """-log sigmoid of how far the better answer's reward is ahead; ln 2 before the first step."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """share of the pairs that are taken to be the other way round (conservative DPO)"""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P]"""
        ahead = better - worse
        return -(1 - self.label_smoothing) * logsigmoid(ahead) - self.label_smoothing * logsigmoid(-ahead)

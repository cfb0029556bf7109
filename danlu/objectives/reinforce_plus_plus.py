"""REINFORCE++: https://arxiv.org/abs/2501.03262"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from danlu.objectives._answers import Row
from danlu.objectives._groups import ahead
from danlu.objectives._penalised import Penalised

TINY = 1e-8


class ReinforcePlusPlus(Penalised):
    """A token's return is the answer's reward less the penalties from it on, in deviations of the whole step."""

    baseline: Literal["none", "group"] = "none"
    """group: rewards are first measured from the mean of their group (REINFORCE++-baseline)"""

    def credit(self, rewards_NG: Tensor, rows: Sequence[Row]) -> list[list[float]]:
        """Measured from the mean over all tokens of the step, and divided by their deviation."""
        rewards = (rewards_NG if self.baseline == "none" else ahead(rewards_NG)).flatten()
        returns = [
            reward - self.penalties(row).flip(0).cumsum(0).flip(0) for reward, row in zip(rewards, rows, strict=True)
        ]
        every = torch.cat(returns)
        if bool((every == every[0]).all()):
            return [[0.0] * len(row.ids) for row in rows]
        mean, deviation = every.mean(), every.std(correction=0)
        return [((one - mean) / (deviation + TINY)).tolist() for one in returns]

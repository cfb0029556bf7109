"""REINFORCE leave-one-out: https://arxiv.org/abs/2402.14740"""

from collections.abc import Sequence

import torch
from torch import Tensor

from danlu.data.packing import Pack
from danlu.objectives._answers import Row
from danlu.objectives._clipped import answer_means, answer_ratios
from danlu.objectives._groups import ahead
from danlu.objectives._penalised import Penalised


class RLOO(Penalised):
    """An answer is one action; its advantage is how far its reward is above the mean of its group's other answers."""

    def credit(self, rewards_NG: Tensor, rows: Sequence[Row]) -> list[list[float]]:
        """The penalties of all tokens are part of the answer's reward."""
        penalties = torch.stack([self.penalties(row).sum() for row in rows])
        return super().credit(rewards_NG - penalties.reshape(rewards_NG.shape), rows)

    def advantages(self, rewards_NG: Tensor) -> Tensor:
        """[N,G]: without itself the mean is further away by G / (G - 1)."""
        count = rewards_NG.shape[1]
        return ahead(rewards_NG) * count / (count - 1)

    def log_ratios(self, log_ratios_T: Tensor, pack: Pack) -> Tensor:
        """[T]"""
        return answer_ratios(log_ratios_T, pack)

    def summed(self, losses_T: Tensor, pack: Pack) -> tuple[Tensor, float]:
        """Each answer counts the same; all its tokens have the same loss."""
        return answer_means(losses_T, pack)

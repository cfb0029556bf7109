"""Group Relative Policy Optimization: https://arxiv.org/abs/2402.03300; by whole answers GSPO, arXiv:2507.18071"""

from typing import Literal

from torch import Tensor

from danlu.data.packing import Pack
from danlu.objectives._answers import spread
from danlu.objectives._clipped import answer_means
from danlu.objectives._compared import sizes_of, sums_of
from danlu.objectives._groups import EPS, ahead, deviations
from danlu.objectives._held import Held


class GRPO(Held):
    """An answer's advantage is how far its reward is above its group's mean, in deviations of the group."""

    scale: Literal["group", "batch", "none"] = "group"
    """whose deviation advantages are divided by"""
    ratio: Literal["token", "answer"] = "token"
    """of each token, or of the whole answer: the geometric mean over its tokens (GSPO)"""

    def advantages(self, rewards_NG: Tensor) -> Tensor:
        """[N,G]"""
        if self.scale == "none":
            return ahead(rewards_NG)
        return ahead(rewards_NG) / ((deviations(rewards_NG) if self.scale == "group" else rewards_NG.std()) + EPS)

    def log_ratios(self, log_ratios_T: Tensor, pack: Pack) -> Tensor:
        """[T]"""
        if self.ratio == "token":
            return log_ratios_T
        return spread(sums_of(log_ratios_T, pack) / sizes_of(pack), pack)

    def summed(self, losses_T: Tensor, pack: Pack) -> tuple[Tensor, float]:
        """Each answer counts the same, however long it is."""
        return answer_means(losses_T, pack)

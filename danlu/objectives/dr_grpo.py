"""GRPO done right: no division by an answer's length or a group's deviation. https://arxiv.org/abs/2503.20783"""

from torch import Tensor

from danlu.data.packing import Pack
from danlu.objectives._groups import ahead
from danlu.objectives._held import Held


class DrGRPO(Held):
    """An answer's advantage is how far its reward is above its group's mean; each token counts one `max_tokens`-th."""

    def advantages(self, rewards_NG: Tensor) -> Tensor:
        """[N,G]"""
        return ahead(rewards_NG)

    def summed(self, losses_T: Tensor, pack: Pack) -> tuple[Tensor, float]:
        """A long answer counts more than a short one, by as much as it is longer."""
        return losses_T.sum() / self.max_tokens, len(pack.segments)

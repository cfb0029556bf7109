"""Identity Preference Optimization: https://arxiv.org/abs/2310.12036"""

from torch import Tensor

from danlu.objectives._paired import PairedToReference


class IPO(PairedToReference):
    """The squared distance of how far the better answer is ahead from 1 / (2 beta); rewards are means over tokens."""

    length_normalized: bool = True
    """means over an answer's tokens, as in the paper's own experiments, instead of sums"""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P]"""
        return ((better - worse) / self.beta - 1 / (2 * self.beta)) ** 2

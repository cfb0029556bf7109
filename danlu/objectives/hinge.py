"""Sequence likelihood calibration, as a loss of pairs: https://arxiv.org/abs/2305.10425"""

from torch import Tensor

from danlu.objectives._paired import PairedToReference


class Hinge(PairedToReference):
    """Pairs whose better answer is ahead by 1 teach nothing more."""

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P]"""
        return (1 - (better - worse)).relu()

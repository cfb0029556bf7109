"""Objectives whose rewards are less the further an answer's tokens are from the reference. n: tokens of an answer."""

from typing import Literal

import torch
from torch import Tensor

from danlu.objectives._answers import LOGPS, REFERENCE, Row
from danlu.objectives._clipped import Clipped


class Penalised(Clipped):
    """The divergence from the reference is part of the rewards, not of the loss."""

    divergence: Literal["k1", "k2", "k3"] = "k1"
    """how a token's is estimated, d being log r for r times the reference's probability: d; d^2 / 2; d + 1/r - 1"""

    @property
    def samples_logps(self) -> bool:
        """Divergences are of the answers as they were drawn."""
        return self.steps_per_batch > 1 or self.beta > 0

    def penalties(self, row: Row) -> Tensor:
        """[n] float64: what each token costs."""
        return self.beta * self.divergences(row)

    def divergences(self, row: Row) -> Tensor:
        """[n] float64: each token's share of the divergence: http://joschu.net/blog/kl-approx.html"""
        if not self.beta:
            return torch.zeros(len(row.ids), dtype=torch.float64)
        drawn, reference = (torch.tensor(row.told[name], dtype=torch.float64) for name in (LOGPS, REFERENCE))
        further = drawn - reference
        if self.divergence == "k2":
            return further**2 / 2
        return further if self.divergence == "k1" else further + torch.expm1(-further)

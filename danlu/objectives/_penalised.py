"""Objectives whose rewards are less the further an answer's tokens are from the reference. n: tokens of an answer."""

import torch
from torch import Tensor

from danlu.objectives._answers import LOGPS, REFERENCE, Row
from danlu.objectives._clipped import Clipped


class Penalised(Clipped):
    """The divergence from the reference is part of the rewards, not of the loss."""

    @property
    def samples_logps(self) -> bool:
        """Divergences are of the answers as they were drawn."""
        return self.passes > 1 or self.beta > 0

    def penalties(self, row: Row) -> Tensor:
        """[n] float64: what each token costs, by how much likelier it is than under the reference (k1)."""
        if not self.beta:
            return torch.zeros(len(row.ids), dtype=torch.float64)
        drawn, reference = (torch.tensor(row.told[name], dtype=torch.float64) for name in (LOGPS, REFERENCE))
        return self.beta * (drawn - reference)

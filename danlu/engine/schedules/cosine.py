"""Half a cosine from the peak to a floor: https://arxiv.org/abs/1608.03983"""

import math
from typing import Annotated

from pydantic import Field

from danlu.engine.schedules.base import CurvedClimb


class Cosine(CurvedClimb):
    """Climb to the peak, then down along half a cosine."""

    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """where the rate ends, as a share of the peak"""

    def after(self, step: int, num_steps: int) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / num_steps)) / 2

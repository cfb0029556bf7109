"""Several cosines one after the other, each from the full peak: https://arxiv.org/abs/1608.03983"""

import math

from pydantic import PositiveInt

from danlu.engine.schedules.base import Schedule


class CosineRestarts(Schedule):
    """Climb to the peak, then fall to 0 along a cosine, several times."""

    cycles: PositiveInt = 2
    """how often it falls from the peak to 0"""

    def after(self, step: int, num_steps: int) -> float:
        if step == num_steps:
            return 0.0
        return (1 + math.cos(math.pi * (self.cycles * step / num_steps % 1))) / 2

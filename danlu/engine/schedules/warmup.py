"""DeepSpeed's WarmupLR: a ramp, straight or logarithmic, then the peak for ever."""

import math
from typing import Literal

from danlu.engine.schedules.base import Schedule


class Warmup(Schedule):
    """Climb to the peak along a chosen curve and stay there."""

    curve: Literal["linear", "log"] = "linear"
    """the shape of the climb; log, DeepSpeed's default, is steep at first"""

    def climb(self, step: int, warmup: int) -> float:
        return step / warmup if self.curve == "linear" else math.log(step + 1) / math.log(max(2, warmup))

    def after(self, step: int, num_steps: int) -> float:
        return 1.0

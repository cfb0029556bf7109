"""Warm up, stay, decay: the length of the run can be chosen late. https://arxiv.org/abs/2404.06395"""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from danlu.engine.schedules.base import Schedule, share_or_steps, steps_of


class WSD(Schedule):
    """Climb to the peak, stay there, and fall only near the end."""

    decay: float = 0.1
    """how long the fall is: a share of all steps below 1, or a whole number of steps"""
    curve: Literal["linear", "cosine", "sqrt"] = "sqrt"
    """the shape of the fall; sqrt (1 - sqrt) did best in https://arxiv.org/abs/2405.18392"""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """where the rate ends, as a share of the peak"""

    @field_validator("decay")
    @classmethod
    def _decay_is_share_or_steps(cls, decay: float) -> float:
        return share_or_steps(decay)

    def factor(self, step: int, num_steps: int) -> float:
        warmup = steps_of(self.warmup, num_steps)
        if step < warmup:
            return self.climb(step, warmup)
        start = max(warmup, num_steps - steps_of(self.decay, num_steps))
        share = (min(step, num_steps) - start) / max(1, num_steps - start)
        return self.floor + (1 - self.floor) * self._left(max(0.0, share))

    def _left(self, share: float) -> float:
        """What is left of the peak after a share of the fall."""
        if self.curve == "linear":
            return 1 - share
        return (1 + math.cos(math.pi * share)) / 2 if self.curve == "cosine" else 1 - math.sqrt(share)

"""What every schedule answers: the learning rate of a step, from nothing but its number, so resuming needs no state."""

import math
from typing import Literal

from pydantic import field_validator

from danlu.core.parts import Folder, Part


class Schedule(Part):
    """The learning rate over a run.

    `step` counts the optimiser steps already made: the first update uses step 0, the last uses num_steps - 1. The rate
    climbs from 0 at step 0 to its peak exactly at the warm-up step, as in transformers.
    """

    warmup: float = 0.0
    """how long the rate climbs to its peak: a share of all steps below 1, or a whole number of steps"""

    @field_validator("warmup")
    @classmethod
    def _share_or_steps(cls, warmup: float) -> float:
        return share_or_steps(warmup)

    def lr(self, peak: float, step: int, num_steps: int) -> float:
        """The learning rate of the update made after `step` updates."""
        return peak * self.factor(step, num_steps)

    def factor(self, step: int, num_steps: int) -> float:
        """The same as a share of the peak."""
        warmup = steps_of(self.warmup, num_steps)
        if step < warmup:
            return self.climb(step, warmup)
        return self.after(max(0, min(step, num_steps) - warmup), max(1, num_steps - warmup))

    def climb(self, step: int, warmup: int) -> float:
        """The share of the peak during the warm-up."""
        return step / warmup

    def after(self, step: int, num_steps: int) -> float:
        """The share of the peak after the warm-up, both counted from its end."""
        raise NotImplementedError


class CurvedClimb(Schedule):
    """A schedule whose warm-up may follow DeepSpeed's curve."""

    curve: Literal["linear", "log"] = "linear"
    """the shape of the climb; log, DeepSpeed's default, is steep at first"""

    def climb(self, step: int, warmup: int) -> float:
        return step / warmup if self.curve == "linear" else math.log(step + 1) / math.log(max(2, warmup))


def share_or_steps(value: float) -> float:
    """Refuse what is neither a share below 1 nor a whole number of steps."""
    if value < 0 or (value >= 1 and value != int(value)):
        raise ValueError("a share of all steps below 1 (such as 0.03), or a whole number of steps (such as 100)")
    return value


def steps_of(value: float, num_steps: int) -> int:
    """The whole number of steps that a share, or a number of steps, means."""
    # 0.07 * 100 is 7.000000000000001, and nobody means 8 by it
    return math.ceil(value * num_steps - 1e-9) if value < 1 else int(value)


schedules = Folder("danlu.engine.schedules", Schedule)

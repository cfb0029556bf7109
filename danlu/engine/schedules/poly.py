"""A power of the share of steps left, down to a rate given in figures: what transformers calls polynomial."""

from pydantic import NonNegativeFloat, PositiveFloat

from danlu.engine.schedules.base import Schedule, steps_of


class Poly(Schedule):
    """Climb to the peak, then down as a power of what is left."""

    power: PositiveFloat = 1.0
    """1 is a straight line; larger falls sooner"""
    end: NonNegativeFloat = 1e-7
    """the learning rate at the last step, not a share of the peak"""

    def lr(self, peak: float, step: int, num_steps: int) -> float:
        share = self.factor(step, num_steps)
        climbing = step < steps_of(self.warmup, num_steps)
        return peak * share if climbing else self.end + (peak - self.end) * share

    def after(self, step: int, num_steps: int) -> float:
        return (1 - step / num_steps) ** self.power

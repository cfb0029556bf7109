"""DeepSpeed's WarmupLR: a ramp, straight or logarithmic, then the peak for ever."""

from danlu.engine.schedules.base import CurvedClimb


class Warmup(CurvedClimb):
    """Climb to the peak along a chosen curve and stay there."""

    def after(self, step: int, num_steps: int) -> float:
        return 1.0

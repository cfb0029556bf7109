"""Straight down to nothing at the last step."""

from danlu.engine.schedules.base import CurvedClimb


class Linear(CurvedClimb):
    """Climb to the peak, then straight down to 0."""

    def after(self, step: int, num_steps: int) -> float:
        return 1 - step / num_steps

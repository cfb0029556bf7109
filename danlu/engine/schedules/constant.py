"""The peak for the whole run, after a warm-up if there is one."""

from danlu.engine.schedules.base import Schedule


class Constant(Schedule):
    """Climb to the peak and stay there."""

    def after(self, step: int, num_steps: int) -> float:
        return 1.0

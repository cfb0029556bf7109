"""One over the square root of the steps, as the first Transformer was trained: https://arxiv.org/abs/1706.03762"""

from pydantic import PositiveInt

from danlu.engine.schedules.base import Schedule, steps_of


class InverseSqrt(Schedule):
    """Climb to the peak, then fall with the square root of the step; it needs no last step."""

    timescale: PositiveInt | None = None
    """steps past the warm-up until the rate is 0.71 of the peak; as many as the warm-up has by default"""

    def factor(self, step: int, num_steps: int) -> float:
        warmup = steps_of(self.warmup, num_steps)
        timescale = self.timescale or warmup or 10_000
        return self.climb(step, warmup) if step < warmup else (timescale / (timescale + step - warmup)) ** 0.5

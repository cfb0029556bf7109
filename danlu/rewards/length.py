"""Answers of a length: nothing inside it, less and less outside. As DAPO's soft punishment: arXiv:2503.14476"""

from typing import Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from danlu.rewards.base import Court, Judge, Reward


class Length(Reward):
    """0 from `least` to `most` tokens, falling to -1 where an answer is `slack` tokens shorter or longer."""

    least: NonNegativeInt = 0
    """fewest tokens of a good answer, its end mark counted"""
    most: PositiveInt
    """most tokens of a good answer"""
    slack: NonNegativeInt = 0
    """tokens outside over which the reward falls to -1; 0 is at once"""

    @model_validator(mode="after")
    def _some_length_is_good(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is more than most {self.most}")
        return self

    def open(self, court: Court) -> Judge:
        """Nothing has to be loaded."""
        return lambda answers: [self.of(len(answer.ids)) for answer in answers]

    def of(self, count: int) -> float:
        """The reward of so many tokens."""
        outside = max(self.least - count, count - self.most, 0)
        return -1.0 if outside > self.slack else -outside / max(1, self.slack)

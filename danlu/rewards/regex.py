"""Answers of a form: what a pattern finds in them."""

from typing import Annotated

from pydantic import AfterValidator

from danlu.rewards._words import compiled, matches
from danlu.rewards.base import Court, Judge, Reward


class Regex(Reward):
    """One number where the pattern is found and another where it is not."""

    pattern: Annotated[str, AfterValidator(compiled)]
    """a regular expression"""
    whole: bool = False
    """the pattern has to fit the answer from its first letter to its last, not only some words of it"""
    found: float = 1.0
    """what an answer with it is worth"""
    missing: float = 0.0
    """what an answer without it is worth"""

    def open(self, court: Court) -> Judge:
        """Nothing has to be loaded."""
        return lambda answers: [
            self.found if matches(self.pattern, one.text, one, whole=self.whole) else self.missing for one in answers
        ]

"""What every writer does: prompts in, answers of the policy as it is now out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from danlu.core.parts import Part
from danlu.generate.base import Finish, GenerationConfig
from danlu.models.policy import Policy


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's ids, the last of them the stop token unless the limit cut it off.

    `logps` are the log-probabilities of its ids as they were drawn, where a writer knows them.
    """

    ids: list[int]
    finish: Finish
    logps: list[float] | None = None


Write = Callable[[Sequence[list[int]], int, GenerationConfig], list[list[Draft]]]
"""prompts, how many answers to each, how they are drawn -> the answers to each prompt; torch's own generator decides"""


class Writer(Part):
    """Settings of who writes answers for a policy to learn from."""

    def open(self, policy: Policy, stops: set[int]) -> Write:
        """Make ready what writes, once before the first step; each call writes with the policy's weights of then."""
        raise NotImplementedError

"""What every writer does: prompts in, answers of the policy as it is now out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from danlu.core.parts import Part
from danlu.core.ranks import Ranks
from danlu.generate.base import Finish, GenerationConfig
from danlu.models.adapters.base import Adapter
from danlu.models.policy import Policy


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's ids, the last of them the stop token unless the limit cut it off.

    `logps` are the log-probabilities of its ids as they were drawn, where a writer knows them; NaN where of one it
    does not.
    """

    ids: list[int]
    finish: Finish
    logps: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """What a writer is given of a run; in `folder` things lie that other processes read while the run lasts.

    All `ranks` ask for the same answers at the same time, and all get the same.
    """

    policy: Policy
    adapter: Adapter
    tokenizer: PreTrainedTokenizerFast
    stops: set[int]
    folder: Path
    ranks: Ranks = field(default_factory=Ranks)


class Pen:
    """A writer at work in one run."""

    behind: int | None = None
    """steps that the policy has made since the weights that it writes with; None: those are the policy's own"""

    def __call__(self, prompts: Sequence[list[int]], count: int, config: GenerationConfig) -> list[list[Draft]]:
        """`count` answers to each prompt; torch's own generator decides which."""
        raise NotImplementedError

    def learnt(self) -> None:
        """The policy has made a step."""

    def close(self) -> None:
        """Nothing more is written in this run."""


class Writer(Part):
    """Settings of who writes answers for a policy to learn from."""

    def refusal(self, adapter: Adapter) -> str | None:
        """Why it cannot write what learns so; None where it can."""
        return None

    def open(self, desk: Desk) -> Pen:
        """Make ready what writes, once before the first step."""
        raise NotImplementedError

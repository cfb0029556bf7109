"""What every reward does: answers in, a number for each out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from danlu.core.errors import RewardError
from danlu.core.parts import Part
from danlu.generate.base import Finish
from danlu.models.policy import Policy

SHOWN = 60
"""characters of an answer in an error"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote. `prompt` and `text` are without special tokens; a text may be empty.

    `expected` is the answer that the row has, None where it has none. `ids` end with the token that ended the answer,
    unless the limit cut it off (`finish` is length). `where` is the prompt's file:row.
    """

    prompt: str
    text: str
    expected: str | None
    finish: Finish
    prompt_ids: list[int]
    ids: list[int]
    where: str


Judge = Callable[[Sequence[Answer]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Court:
    """What a judge may need to know of the run: the policy's tokenizer, where it computes, and tokens at once.

    The policy itself is there for who shares its base.
    """

    tokenizer: PreTrainedTokenizerFast
    device: torch.device
    pack_tokens: int
    policy: Policy | None = None


class Reward(Part):
    """Settings of something that judges answers."""

    weight: float = 1.0
    """what it counts beside other rewards"""

    def open(self, court: Court) -> Judge:
        """Make ready what judges: called once, before the first step."""
        raise NotImplementedError


def judged(name: str, judge: Judge, answers: Sequence[Answer]) -> list[float]:
    """A finite number for each answer, or a `RewardError` that names the first one without."""
    rewards = list(judge(answers))
    if len(rewards) != len(answers):
        raise RewardError(f"reward {name}: {len(rewards)} rewards for {len(answers)} answers; give one for each")
    for answer, reward in zip(answers, rewards, strict=True):
        if isinstance(reward, str) or not isinstance(reward, int | float) or not math.isfinite(reward):
            raise RewardError(f"reward {name} gave {reward!r} to {shown(answer)}; a reward is a finite number")
    return [float(reward) for reward in rewards]


def shown(answer: Answer) -> str:
    """An answer in a few words, for people."""
    more = "…" if len(answer.text) > SHOWN else ""
    return f"the answer {answer.text[:SHOWN]!r}{more} to {answer.where}"

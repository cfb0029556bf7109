"""What every generator answers: chats in, answers out."""

from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from danlu.core.parts import Config
from danlu.samples import Message

Finish = Literal["stop", "length"]


class GenerationConfig(Config):
    """How an answer is chosen, token by token."""

    max_tokens: int = Field(default=256, ge=1)
    """longest answer"""
    min_tokens: int = Field(default=0, ge=0)
    """shortest answer: nothing ends one before"""
    temperature: float = Field(default=0.0, ge=0)
    """how much chance there is in it; 0 always takes the likeliest token"""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """choose among the likeliest tokens that have this much of the probability together"""
    top_k: int = Field(default=0, ge=0)
    """choose among this many of the likeliest tokens; 0 is all"""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """makes tokens that were there before less likely; 1 does nothing"""
    seed: int = 0
    """the same seed and the same chats give the same answers"""


@dataclass(frozen=True)
class Completion:
    """One answer. `ids` end before the stop token; `finish` is length if the limit cut it off."""

    text: str
    ids: list[int]
    finish: Finish
    num_prompt_tokens: int


class Generator(Protocol):
    """Something that answers chats."""

    def answer(self, chats: Sequence[Sequence[Message]], config: GenerationConfig) -> list[Completion]:
        """One answer to each chat."""
        ...

    def stream(self, chat: Sequence[Message], config: GenerationConfig) -> abc.Generator[str, None, None]:
        """One answer in pieces of text, as they are written; closing the iterator stops it."""
        ...

"""The few shapes a training example can have: the words that every floor shares."""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(slots=True)
class Message:
    """One turn of a chat. `train` says whether its words count in the loss."""

    role: str
    content: str
    train: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """what else a template may read of it, such as tool_calls"""


@dataclass(slots=True)
class Document:
    """Plain text; every token is trained."""

    text: str
    marks: list[tuple[int, str]] = field(default_factory=list)
    """(place in the text, name of a special token) for each special token that stands there, such as title_token"""


@dataclass(slots=True)
class Conversation:
    """A chat; the assistant's turns are trained."""

    messages: list[Message]
    facts: dict[str, Any] = field(default_factory=dict)
    """what else the template may read, such as tools"""


@dataclass(slots=True)
class PreferencePair:
    """A prompt with a better and a worse reply, or with several in order, the best first."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    facts: dict[str, Any] = field(default_factory=dict)
    """what else the template may read, such as tools"""
    worse: list[list[Message]] = field(default_factory=list)
    """more replies, each worse than the one before it; the first is worse than the rejected one"""
    margin: float = 0.0
    """how much better the chosen reply is, where the data says so"""


@dataclass(slots=True)
class Rating:
    """A chat whose last answer was judged good or bad."""

    messages: list[Message]
    good: bool
    facts: dict[str, Any] = field(default_factory=dict)
    """what else the template may read, such as tools"""


@dataclass(slots=True)
class Prompt:
    """A chat that waits for a reply."""

    messages: list[Message]
    later: list[Message] = field(default_factory=list)
    """what the user goes on to say, one message after each reply"""


Sample = Document | Conversation | PreferencePair | Rating | Prompt

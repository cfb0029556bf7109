"""The few shapes a training example can have: the words that every floor shares."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Message:
    """One turn of a chat. `train` says whether its words count in the loss."""

    role: str
    content: str
    train: bool = False


@dataclass(slots=True)
class Document:
    """Plain text; every token is trained."""

    text: str


@dataclass(slots=True)
class Conversation:
    """A chat; the assistant's turns are trained."""

    messages: list[Message]
    facts: dict[str, Any] = field(default_factory=dict)
    """what else the template may read, such as tools"""


@dataclass(slots=True)
class PreferencePair:
    """A prompt with a better and a worse reply."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


@dataclass(slots=True)
class Rating:
    """A chat that was judged good or bad."""

    messages: list[Message]
    good: bool


@dataclass(slots=True)
class Prompt:
    """A chat that waits for a reply."""

    messages: list[Message]


Sample = Document | Conversation | PreferencePair | Rating | Prompt

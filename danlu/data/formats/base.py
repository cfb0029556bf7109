"""What every format does, and how it says that a row is of no use."""

from collections.abc import Sequence
from typing import Any, ClassVar

from danlu.core.errors import DataError
from danlu.core.parts import Part
from danlu.samples import Message, Sample

JUDGING = {"chosen", "selected", "rejected"}


class Unreadable(DataError):
    """This row gives no sample; the message is the reason, which is counted."""


class Format(Part):
    """How one shape of rows is read. A format that derives from another reads a special case of its rows."""

    gives: ClassVar[type]
    """the sample that a row becomes"""
    shape: ClassVar[str]
    """the keys of a row, for people"""
    recognised: ClassVar[bool] = True
    """whether rows are known to have this format without its name in the recipe"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape; its values may still be of no use."""
        raise NotImplementedError

    def read(self, row: Any) -> Sample | Sequence[Sample]:
        """The sample of a row, or several, or `Unreadable` with the reason."""
        raise NotImplementedError

    def samples(self, row: Any) -> Sequence[Sample]:
        """All samples of a row."""
        found = self.read(row)
        return found if isinstance(found, Sequence) else [found]


def text_of(row: dict[str, Any], key: str, *, optional: bool = False) -> str:
    """The text under a key."""
    value = row.get(key)
    if value is None:
        if optional:
            return ""
        raise Unreadable(f"no {key!r}")
    if not isinstance(value, str):
        raise Unreadable(f"{key!r} is {type(value).__name__}, not text")
    if not optional and not value.strip():
        raise Unreadable(f"{key!r} is empty")
    return value


def system_of(row: dict[str, Any]) -> list[Message]:
    """The system prompt that a row has of its own, as the chat's first message."""
    said = text_of(row, "system", optional=True)
    return [Message("system", said)] if said else []


def asked(row: dict[str, Any], first: str, second: str, joined_by: str) -> Message:
    """A question of two parts, of which either may be missing."""
    parts = [text_of(row, first, optional=bool(row.get(second))), text_of(row, second, optional=True)]
    return Message("user", joined_by.join(filter(None, parts)))


def answer(said: str) -> Message:
    """What the assistant says, to be learned."""
    return Message("assistant", said, train=True)


def is_lesson(row: Any) -> bool:
    """Whether a row is a mapping that judges no answer: bad answers are not to be learned as if they were good."""
    return isinstance(row, dict) and not JUDGING & row.keys() and not is_rated(row)


def is_rated(row: dict[str, Any]) -> bool:
    """Whether a row has a `label` that says good or bad; one of more values is something else."""
    return "label" in row and (isinstance(row["label"], bool | None) or row["label"] in (0, 1))

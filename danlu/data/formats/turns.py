"""Rows of bare texts in turn: LIMA's {conversations: [question, answer, …]} and UltraChat's {data: […]}"""

from typing import Any

from danlu.data.formats._chat import is_chat
from danlu.data.formats.base import Format, Unreadable, answer, is_lesson, system_of
from danlu.samples import Conversation, Message

LISTS = ("conversations", "data")


class Turns(Format):
    """The user and the assistant speak in turn, and the user begins."""

    gives = Conversation
    shape = "{conversations: [question, answer, …]} or {data: [question, answer, …]}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        if not is_lesson(row) or not any(key in row for key in LISTS):
            return False
        listed = listed_in(row)
        return not listed or (isinstance(listed, list) and not is_chat(listed))

    def read(self, row: dict[str, Any]) -> Conversation:
        """The chat of a row."""
        listed = listed_in(row)
        if not listed:
            raise Unreadable("an empty conversation")
        if not isinstance(listed, list) or not all(isinstance(said, str) for said in listed):
            raise Unreadable("the turns are not a list of texts")
        spoken = [answer(said) if n % 2 else Message("user", said) for n, said in enumerate(listed)]
        return Conversation([*system_of(row), *spoken])


def listed_in(row: dict[str, Any]) -> Any:
    """The texts under any of their usual names."""
    return next((row[key] for key in LISTS if row.get(key) is not None), None)

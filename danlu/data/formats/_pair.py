"""What the formats with one key for the question and one for the answer have in common."""

from typing import Any, ClassVar

from danlu.data.formats.base import Format, answer, is_lesson, system_of, text_of
from danlu.samples import Conversation, Message


class Pair(Format):
    """A question and its answer, each a text."""

    gives = Conversation

    asks: ClassVar[str]
    """the question's key"""
    answers: ClassVar[str]
    """the answer's key"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return is_lesson(row) and {cls.asks, cls.answers} <= row.keys()

    def read(self, row: dict[str, Any]) -> Conversation:
        """A question and its answer."""
        question = Message("user", text_of(row, self.asks))
        return Conversation([*system_of(row), question, answer(text_of(row, self.answers))])

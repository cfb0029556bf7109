"""Rows of {question, answer}, as GSM8K has them."""

from typing import Any

from danlu.data.formats.base import Format, text_of
from danlu.samples import Conversation, Message


class QuestionAnswer(Format):
    """A question and its answer."""

    gives = Conversation
    shape = "{question, answer}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and {"question", "answer"} <= row.keys() and "options" not in row

    def read(self, row: dict[str, Any]) -> Conversation:
        """A question and its answer."""
        return Conversation(
            [Message("user", text_of(row, "question")), Message("assistant", text_of(row, "answer"), train=True)]
        )

"""Rows of {instruction, context, response}: https://huggingface.co/datasets/databricks/databricks-dolly-15k"""

from typing import Any

from danlu.data.formats.base import Format, answer, asked, is_lesson, system_of, text_of
from danlu.samples import Conversation


class Dolly(Format):
    """An instruction, sometimes with a text to read, and the response."""

    gives = Conversation
    shape = "{instruction, context?, response}"

    joined_by: str = "\n"
    """what stands between instruction and context"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return is_lesson(row) and {"instruction", "response"} <= row.keys()

    def read(self, row: dict[str, Any]) -> Conversation:
        """The instruction with its text, and the response."""
        question = asked(row, "instruction", "context", self.joined_by)
        return Conversation([*system_of(row), question, answer(text_of(row, "response"))])

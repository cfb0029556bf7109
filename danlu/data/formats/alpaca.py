"""Rows of {instruction, input, output}: https://github.com/tatsu-lab/stanford_alpaca"""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, text_of
from danlu.samples import Conversation, Message


class Alpaca(Format):
    """instruction, input and output, with earlier turns in history."""

    gives = Conversation
    shape = "{instruction, input?, output, history?, system?}"

    joined_by: str = "\n"
    """what stands between instruction and input"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and "instruction" in row and isinstance(row.get("output"), str)

    def read(self, row: dict[str, Any]) -> Conversation:
        """A question and its answer, after the history."""
        messages = [Message("system", row["system"])] if row.get("system") else []
        for turn in row.get("history") or []:
            messages += exchange(turn)
        asked = [text_of(row, "instruction", optional=bool(row.get("input"))), text_of(row, "input", optional=True)]
        question = Message("user", self.joined_by.join(filter(None, asked)))
        return Conversation([*messages, question, Message("assistant", text_of(row, "output"), train=True)])


def exchange(turn: Any) -> list[Message]:
    """A pair [question, answer] of the history."""
    if not isinstance(turn, list | tuple) or len(turn) != 2 or not all(isinstance(said, str) for said in turn):
        raise Unreadable("'history' is not a list of [question, answer]")
    return [Message("user", turn[0]), Message("assistant", turn[1], train=True)]

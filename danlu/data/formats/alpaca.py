"""Rows of {instruction, input, output}: https://github.com/tatsu-lab/stanford_alpaca"""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, answer, asked, is_lesson, system_of, text_of
from danlu.samples import Conversation, Message


class Alpaca(Format):
    """instruction, input and output, with earlier turns in history."""

    gives = Conversation
    shape = "{instruction, input?, output, history?, system?}"

    joined_by: str = "\n"
    """what stands between instruction and input"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape; a list of outputs is a choice between answers."""
        return is_lesson(row) and {"instruction", "output"} <= row.keys() and not isinstance(row["output"], list)

    def read(self, row: dict[str, Any]) -> Conversation:
        """A question and its answer, after the history."""
        return Conversation([*prompt_of(row, self.joined_by), answer(text_of(row, "output"))])


def prompt_of(row: dict[str, Any], joined_by: str) -> list[Message]:
    """All that comes before the answer."""
    earlier = row.get("history") or []
    if not isinstance(earlier, list | tuple):
        raise Unreadable("'history' is not a list of [question, answer]")
    history = [message for turn in earlier for message in exchange(turn)]
    return [*system_of(row), *history, asked(row, "instruction", "input", joined_by)]


def exchange(turn: Any) -> list[Message]:
    """A pair [question, answer] of the history."""
    if not isinstance(turn, list | tuple) or len(turn) != 2 or not all(isinstance(said, str) for said in turn):
        raise Unreadable("'history' is not a list of [question, answer]")
    return [Message("user", turn[0]), answer(turn[1])]

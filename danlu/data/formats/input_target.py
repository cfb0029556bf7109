"""Rows of {input, target}, as PandaLLM has them; a row may also be a list of such turns."""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, answer, asked, is_lesson, text_of
from danlu.samples import Conversation, Message


class InputTarget(Format):
    """An input and the target that answers it."""

    gives = Conversation
    shape = "{input, target, instruction?} or a list of them"

    joined_by: str = " "
    """what stands between instruction and input"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        turns = row if isinstance(row, list) else [row]
        return bool(turns) and all(is_lesson(turn) and {"input", "target"} <= turn.keys() for turn in turns)

    def read(self, row: Any) -> Conversation:
        """Each turn is a question and its answer."""
        turns = row if isinstance(row, list) else [row]
        if not turns:
            raise Unreadable("an empty conversation")
        return Conversation([message for turn in turns for message in self.exchange(turn)])

    def exchange(self, turn: Any) -> list[Message]:
        """One question with its instruction before it, and the answer."""
        if not isinstance(turn, dict):
            raise Unreadable(f"a turn is {type(turn).__name__}, not a mapping")
        return [asked(turn, "instruction", "input", self.joined_by), answer(text_of(turn, "target"))]

"""Rows of {prompt, completion}, as texts or as lists of messages; P3's end with a mark: https://arxiv.org/abs/2110.08207"""

from typing import Any

from danlu.data.formats._chat import begun, chat_of, facts_of
from danlu.data.formats.base import Format, Unreadable, answer, is_lesson, system_of, text_of
from danlu.samples import Conversation, Message


class PromptCompletion(Format):
    """A prompt and what completes it; only that is trained."""

    gives = Conversation
    shape = "{prompt, completion}, texts or lists of messages"

    end: str = "<|endoftext|>"
    """what may stand at the end of a completion only to end it, and is taken off"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return is_lesson(row) and {"prompt", "completion"} <= row.keys()

    def read(self, row: dict[str, Any]) -> Conversation:
        """The prompt and its completion."""
        prompt = begun(system_of(row), prompt_of(row))
        for message in prompt:
            message.train = False
        return Conversation([*prompt, *self.completion(row)], facts_of(row))

    def completion(self, row: dict[str, Any]) -> list[Message]:
        """What is to be learned."""
        if isinstance(row["completion"], list):
            return chat_of(row["completion"])
        said = text_of(row, "completion").removesuffix(self.end)
        if not said.strip():
            raise Unreadable("'completion' is empty")
        return [answer(said)]


def prompt_of(row: dict[str, Any]) -> list[Message]:
    """A prompt that is one text or a list of messages."""
    if isinstance(row["prompt"], list):
        return chat_of(row["prompt"])
    return [Message("user", text_of(row, "prompt"))]

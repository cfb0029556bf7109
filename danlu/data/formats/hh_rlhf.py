"""Pairs of chats in one text each, as Anthropic's HH-RLHF has them: https://github.com/anthropics/hh-rlhf"""

from typing import Any

from danlu.data.formats._replies import preferred
from danlu.data.formats._tagged import turns_of
from danlu.data.formats.base import Unreadable, answer, text_of
from danlu.data.formats.chosen_rejected import ChosenRejected
from danlu.samples import Message, PreferencePair


class HhRlhf(ChosenRejected):
    """`Human:` and `Assistant:` in the texts, and perhaps the prompt by itself."""

    shape = "{prompt?: '\\n\\nHuman: …\\n\\nAssistant:', chosen, rejected}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return super().fits(row) and is_tagged(row.get("chosen" if row.get("prompt") is None else "prompt"))

    def pair_of(self, row: dict[str, Any]) -> PreferencePair:
        """The turns of both texts; the prompt is what they share."""
        better, worse = text_of(row, "chosen"), text_of(row, "rejected")
        if row.get("prompt") is None or is_tagged(better):
            return preferred([], chat_of(better), chat_of(worse))
        *prompt, invitation = chat_of(text_of(row, "prompt"))
        if invitation.role != "assistant" or invitation.content:
            raise Unreadable("'prompt' does not end with Assistant:")
        return preferred(prompt, [answer(better.strip())], [answer(worse.strip())])


def is_tagged(text: Any) -> bool:
    """Whether a text begins as these chats do."""
    return isinstance(text, str) and text.lstrip().startswith("Human:")


def chat_of(text: str) -> list[Message]:
    """The turns of a text; what follows where two texts part is learned."""
    turns = turns_of(text, "\n\n")
    for turn in turns:
        turn.train = turn.role == "assistant"
    return turns

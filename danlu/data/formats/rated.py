"""Chats with a `label` that says whether the last answer is good, as KTO learns from: https://arxiv.org/abs/2402.01306"""

from typing import Any

from danlu.data.formats.alpaca import Alpaca
from danlu.data.formats.base import Format, Unreadable, is_rated
from danlu.data.formats.messages import Messages
from danlu.data.formats.prompt_completion import PromptCompletion
from danlu.samples import Conversation, Rating

CHATS = (Messages, PromptCompletion, Alpaca)


class Rated(Format):
    """A chat and whether its last answer is good."""

    gives = Rating
    shape = "{messages, label}, {prompt, completion, label} or {instruction, output, label}; label: true or false"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and is_rated(row) and any(kind.fits(unrated(row)) for kind in CHATS)

    def read(self, row: dict[str, Any]) -> Rating:
        """The chat, of which only the last answer is judged."""
        if row.get("label") not in (True, False):
            raise Unreadable("'label' is not true or false")
        kind = next((kind for kind in CHATS if kind.fits(unrated(row))), None)
        if kind is None:
            raise Unreadable("no chat beside the label")
        chat: Conversation = kind().read(unrated(row))
        if chat.messages[-1].role != "assistant":
            raise Unreadable("no answer to judge")
        for message in chat.messages[:-1]:
            message.train = False
        return Rating(chat.messages, bool(row["label"]), chat.facts)


def unrated(row: dict[str, Any]) -> dict[str, Any]:
    """The row without its label."""
    return {key: value for key, value in row.items() if key != "label"}

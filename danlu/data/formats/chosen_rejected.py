"""Rows of {prompt, chosen, rejected} (or selected), as texts, messages or lists of messages."""

from math import isfinite
from typing import Any

from danlu.data.formats._chat import begun, chat_of, facts_of, listed_in, message_of
from danlu.data.formats._replies import preferred
from danlu.data.formats.alpaca import prompt_of as instruction_of
from danlu.data.formats.base import Format, Unreadable, answer, system_of, text_of
from danlu.data.formats.prompt_completion import prompt_of
from danlu.samples import Message, PreferencePair


class ChosenRejected(Format):
    """A prompt with a better and a worse reply."""

    gives = PreferencePair
    shape = (
        "{prompt, chosen, rejected} or {prompt, selected, rejected}: texts or lists of messages; "
        "{instruction, input?, history?, chosen, rejected}; {conversations, chosen, rejected}; "
        "{chosen, rejected}: whole chats; margin?: how much better the chosen one is"
    )

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and "rejected" in row and ("chosen" in row or "selected" in row)

    def read(self, row: dict[str, Any]) -> PreferencePair:
        """The prompt, where the two replies part, and by how much one is better, if that is said."""
        pair = self.pair_of(row)
        pair.margin = margin_of(row)
        return pair

    def pair_of(self, row: dict[str, Any]) -> PreferencePair:
        """The prompt, and where the two replies part."""
        chosen = reply_of(row, "chosen" if "chosen" in row else "selected")
        rejected = reply_of(row, "rejected")
        system = system_of(row)
        if chosen[0].role != "assistant":  # both are whole chats, which repeat the prompt
            return preferred([], begun(system, chosen), begun(system, rejected), facts_of(row))
        return preferred(begun(system, asked_in(row)), chosen, rejected, facts_of(row))


def margin_of(row: dict[str, Any]) -> float:
    """The number under `margin`; 0 where there is none."""
    margin = row.get("margin")
    if margin is None:
        return 0.0
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not isfinite(margin):
        raise Unreadable("'margin' is not a number")
    return float(margin)


def reply_of(row: dict[str, Any], key: str) -> list[Message]:
    """A reply, or the chat that ends with it."""
    given = row.get(key)
    if isinstance(given, dict):
        return [message_of(given)]
    if isinstance(given, list):
        return chat_of(given)
    return [answer(text_of(row, key))]


def asked_in(row: dict[str, Any]) -> list[Message]:
    """The chat before the replies."""
    if row.get("prompt") is not None:
        return prompt_of(row)
    if row.get("instruction") is not None:
        return instruction_of(row, "\n")
    listed = listed_in(row)
    if listed is None:
        raise Unreadable("no 'prompt', 'instruction' or 'conversations'")
    return chat_of(listed)

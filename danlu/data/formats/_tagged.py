"""Chats that are one text, with `Human:` and `Assistant:` before what each of the two says."""

import re

from danlu.data.formats.base import Unreadable
from danlu.samples import Message

SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def turns_of(text: str, gap: str) -> list[Message]:
    """The turns of a text; `gap` is a pattern of what stands between two of them."""
    before, *rest = re.split(rf"(?:\A\s*|{gap})(Human|Assistant)[:：]", text)
    if before.strip() or not rest:
        raise Unreadable("a chat in one text that does not begin with Human: or Assistant:")
    return [Message(SPEAKERS[name], said.strip()) for name, said in zip(rest[::2], rest[1::2], strict=True)]

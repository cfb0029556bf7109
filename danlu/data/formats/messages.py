"""Rows of messages: OpenAI's {role, content} and ShareGPT's {from, value}, with or without tools."""

from typing import Any

from danlu.data.formats._chat import LISTS, Said, Spelling, begun, chat_of, facts_of, is_chat, listed_in
from danlu.data.formats.base import Format, is_lesson, system_of
from danlu.samples import Conversation


class Messages(Format):
    """A list of messages, each with a role and its words."""

    gives = Conversation
    shape = "{messages: [{role, content}], tools?} or {conversations: [{from, value}], tools?, system?}"

    list: str | None = None
    """the key of the list; messages, conversations, conversation or dialog if not given"""
    role: str | None = None
    """the key of who speaks; role or from if not given"""
    content: str | None = None
    """the key of what is said; content or value if not given"""
    roles: dict[str, Said] = {}
    """what their words for who speaks mean: system, user, assistant, tool or function_call"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return is_lesson(row) and any(key in row for key in LISTS) and is_chat(listed_in(row))

    def read(self, row: dict[str, Any]) -> Conversation:
        """The chat of a row."""
        listed = row.get(self.list) if self.list else listed_in(row)
        messages = chat_of(listed, Spelling(self.role, self.content, self.roles))
        return Conversation(begun(system_of(row), messages), facts_of(row))

"""Chats that do not go question, answer, question, answer: what cannot be trained is taken off, and said."""

from danlu.data.formats.base import Unreadable
from danlu.samples import Conversation, Message


def tidy(chat: Conversation, system: str | None) -> list[str]:
    """Mend a chat in place; returns a word for each change."""
    changes = []
    opening = 1 if chat.messages and chat.messages[0].role == "system" else 0
    while len(chat.messages) > opening and chat.messages[opening].role == "assistant":
        del chat.messages[opening]
        changes = ["an assistant's turn before any question was taken off"]
    while chat.messages and chat.messages[-1].role in ("user", "system"):
        if len(chat.messages) == 1:
            raise Unreadable("no answer to learn from")
        chat.messages.pop()
        changes = [*changes[:1], "a last question without an answer was taken off"]
    answers = [message.content for message in chat.messages if message.train]
    if not any(answer.strip() for answer in answers):
        raise Unreadable("an empty answer" if answers else "no answer to learn from")
    if system and chat.messages[0].role != "system":
        chat.messages.insert(0, Message("system", system))
    return changes

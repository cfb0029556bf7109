"""OpenAssistant's trees as chats, one for each leaf: https://huggingface.co/datasets/OpenAssistant/oasst1"""

from typing import Any

from danlu.data.formats._tree import Thread, Trees, chat_of, replies_of, threads
from danlu.data.formats.base import Unreadable
from danlu.samples import Conversation, Message


class OpenAssistant(Trees):
    """A chat for each thread that people wrote to its end."""

    gives = Conversation

    def read(self, row: dict[str, Any]) -> list[Conversation]:
        """The threads that end with an answer; what several of them share is in each."""
        kept = [thread for thread in threads(self.root(row)) if is_whole(thread) and self.keeps(thread)]
        chats = [Conversation(answered(chat_of(thread))) for thread in kept]
        if not chats:
            raise Unreadable("a tree without a thread of people's own words that ends with an answer")
        return chats


def is_whole(thread: Thread) -> bool:
    """Whether a thread ends where nobody went on: with an answer, or with the first of some unanswered questions."""
    if len(thread) < 2 or replies_of(thread[-1]):
        return False
    return thread[-1].get("role") == "assistant" or replies_of(thread[-2])[0] is thread[-1]


def answered(messages: list[Message]) -> list[Message]:
    """The chat without a last question that has no answer."""
    return messages[:-1] if messages[-1].role == "user" else messages

"""OpenAssistant's trees of messages: which are kept, and the threads from the root down."""

from collections.abc import Iterator
from typing import Any

from pydantic import PositiveInt

from danlu.data.formats.base import Format, Unreadable
from danlu.samples import Message

Node = dict[str, Any]
Thread = list[Node]

ROLES = {"prompter": "user", "assistant": "assistant"}


class Trees(Format):
    """A tree of messages in a row, with people's judgement of them."""

    shape = "{message_tree_id, tree_state, prompt: {text, role, lang, replies: […]}}"

    languages: list[str] = ["en"]
    """which trees are read, by the language of their first message"""
    top_k: PositiveInt | None = None
    """read only replies of so many best ranks"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and {"tree_state", "prompt"} <= row.keys()

    def root(self, row: dict[str, Any]) -> Node:
        """The first message of a tree that is finished, approved and in a language asked for."""
        root = row["prompt"]
        if not isinstance(root, dict):
            raise Unreadable("'prompt' is no message")
        if row["tree_state"] != "ready_for_export":
            raise Unreadable(f"a tree that is {row['tree_state']!r:.40}, not 'ready_for_export'")
        if root.get("review_result") is not True:
            raise Unreadable("a tree whose first message no review has approved")
        if root.get("lang") not in self.languages:
            raise Unreadable(f"a tree in {root.get('lang')!r:.20} (languages: {', '.join(self.languages)})")
        return root

    def keeps(self, thread: Thread) -> bool:
        """Whether people wrote all of a thread, nobody deleted any of it, and its replies rank high enough."""
        if any(node.get("deleted") or node.get("synthetic") for node in thread):
            return False
        return self.top_k is None or all(
            self.ranks(node, parent) for parent, node in zip([{}, *thread], thread, strict=False)
        )

    def ranks(self, node: Node, parent: Node) -> bool:
        """Whether a reply is among the best; one without a rank is where it has no rivals."""
        assert self.top_k is not None
        if node.get("role") != "assistant":
            return True
        rank = node.get("rank")
        return len(replies_of(parent)) < 2 if rank is None else rank < self.top_k


def replies_of(node: Node) -> list[Node]:
    """The replies to a message."""
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise Unreadable("'replies' is not a list of messages")
    return replies


def threads(root: Node) -> Iterator[Thread]:
    """Every thread from the root to some message, depth first."""
    waiting: list[Thread] = [[root]]
    while waiting:
        thread = waiting.pop()
        yield thread
        waiting += [[*thread, reply] for reply in reversed(replies_of(thread[-1]))]


def chat_of(thread: Thread) -> list[Message]:
    """A thread's messages, in which the two speak in turn."""
    return [message_of(node, expected="assistant" if n % 2 else "prompter") for n, node in enumerate(thread)]


def message_of(node: Node, expected: str) -> Message:
    """One message of a tree."""
    role, text = node.get("role"), node.get("text")
    if role != expected:
        raise Unreadable(f"a message of {role!r:.40} where {expected!r} speaks")
    if not isinstance(text, str):
        raise Unreadable(f"a message holds {type(text).__name__}, not text")
    return Message(ROLES[expected], text, train=expected == "assistant")

"""Rows of messages: OpenAI's {role, content} and ShareGPT's {from, value}."""

import json
from typing import Any

from danlu.data.formats.base import Format, Unreadable
from danlu.samples import Conversation, Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}


class Messages(Format):
    """A list of messages, each with a role and its words."""

    gives = Conversation
    shape = "{messages: [{role, content}]} or {conversations: [{from, value}]}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        if not isinstance(row, dict) or {"chosen", "rejected", "label"} & row.keys():
            return False
        listed = listed_in(row)
        return isinstance(listed, list) and all(isinstance(message, dict) for message in listed)

    def read(self, row: dict[str, Any]) -> Conversation:
        """The chat of a row."""
        messages = [message(given) for given in listed_in(row) or []]
        if isinstance(row.get("system"), str) and row["system"] and (not messages or messages[0].role != "system"):
            messages.insert(0, Message("system", row["system"]))
        if not messages:
            raise Unreadable("an empty conversation")
        return Conversation(messages, {"tools": tools(row["tools"])} if row.get("tools") else {})


def listed_in(row: dict[str, Any]) -> Any:
    """The list of messages under any of its usual names."""
    return next((row[key] for key in ("messages", "conversations", "conversation", "dialog") if key in row), None)


def message(given: Any) -> Message:
    """One message; assistants are trained unless the row says `train: false` or `weight: 0`."""
    if not isinstance(given, dict):
        raise Unreadable(f"a message is {type(given).__name__}, not a mapping")
    said, content = given.get("role", given.get("from")), given.get("content", given.get("value"))
    role = ROLES.get(str(said).lower())
    if role is None:
        raise Unreadable(f"unknown role {said!r} (known: {', '.join(ROLES)})")
    if not isinstance(content, str):
        raise Unreadable(f"a message of {said} holds {type(content).__name__}, not text")
    trained = bool(given.get("train", given.get("weight", 1)))
    return Message(role, content, train=role == "assistant" and trained)


def tools(given: Any) -> Any:
    """Tool descriptions, which ShareGPT rows keep as a JSON text."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except json.JSONDecodeError as error:
        raise Unreadable("'tools' is not JSON") from error

"""Messages as files have them, with their roles and tool calls under many names, become ours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from danlu.data.formats.base import Unreadable
from danlu.samples import Message

Said = Literal["system", "user", "assistant", "tool", "function_call"]
"""our roles, and the assistant's calls of tools where they are turns of their own"""

ROLES: dict[str, Said] = {
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
    "function_call": "function_call",
    "tool_call": "function_call",
    "tool": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "function": "tool",
}
LISTS = ("messages", "conversations", "conversation", "dialog")
FACTS = ("name", "tool_call_id", "reasoning_content")


@dataclass(frozen=True)
class Spelling:
    """The words of a file where they are not the usual ones."""

    role: str | None = None
    content: str | None = None
    roles: Mapping[str, Said] = field(default_factory=dict)


USUAL = Spelling()


def listed_in(row: Mapping[str, Any]) -> Any:
    """The list of messages under any of its usual names."""
    return next((row[key] for key in LISTS if row.get(key) is not None), None)


def is_chat(listed: Any) -> bool:
    """Whether these are messages rather than bare texts."""
    return listed is None or (isinstance(listed, list) and (not listed or isinstance(listed[0], dict)))


def chat_of(listed: Any, spelling: Spelling = USUAL) -> list[Message]:
    """All messages of a list."""
    if listed is not None and not isinstance(listed, list | tuple):
        raise Unreadable(f"the messages are {type(listed).__name__}, not a list")
    messages = [message_of(given, spelling) for given in listed or []]
    if not messages:
        raise Unreadable("an empty conversation")
    return messages


def message_of(given: Any, spelling: Spelling = USUAL) -> Message:
    """One message; assistants are trained unless the row says `train: false` or `weight: 0`."""
    if not isinstance(given, dict):
        raise Unreadable(f"a message is {type(given).__name__}, not a mapping")
    role = role_of(given, spelling)
    calls = calls_of(given)
    content = content_of(given, spelling, silent=bool(calls))
    if role == "function_call":
        calls, content = called(content)
        role = "assistant"
    facts = {key: given[key] for key in FACTS if isinstance(given.get(key), str)}
    if calls:
        facts["tool_calls"] = calls
    weight = given.get("train", given.get("weight"))
    return Message(role, content, role == "assistant" and (weight is None or bool(weight)), facts)


def role_of(given: dict[str, Any], spelling: Spelling) -> Said:
    """Who speaks."""
    said = given.get(spelling.role) if spelling.role else given.get("role", given.get("from"))
    word = str(said)
    role = spelling.roles.get(word) or ROLES.get(word.lower())
    if role is None:
        raise Unreadable(f"unknown role {said!r:.40} (known: {', '.join({**ROLES, **spelling.roles})})")
    return role


def content_of(given: dict[str, Any], spelling: Spelling, *, silent: bool) -> str:
    """What is said; a message that only calls tools may say nothing."""
    content = given.get(spelling.content) if spelling.content else given.get("content", given.get("value"))
    if content is None and silent:
        return ""
    if isinstance(content, list):
        content = "".join(part_of(part) for part in content)
    if not isinstance(content, str):
        raise Unreadable(f"a message holds {type(content).__name__}, not text")
    return content


def part_of(part: Any) -> str:
    """The text of one part of a message that is a list of parts."""
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise Unreadable(f"a message holds {kind!r:.40}; only text is read")


def calls_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that a message calls: OpenAI's tool_calls, or the older function_call."""
    calls = given.get("tool_calls") or ([given["function_call"]] if given.get("function_call") else [])
    if not isinstance(calls, list):
        raise Unreadable("'tool_calls' is not a list")
    return [call_of(call) for call in calls]


def call_of(call: Any) -> dict[str, Any]:
    """One call as templates read it: the arguments are a mapping, not a JSON text."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unreadable("a tool call has no name")
    arguments = from_json(function.get("arguments") or {}, "the arguments of a tool call")
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def called(said: str) -> tuple[list[dict[str, Any]], str]:
    """The calls of a turn that is nothing but calls in JSON; any other words stay words."""
    try:
        calls = json.loads(said)
        return [call_of(call) for call in (calls if isinstance(calls, list) else [calls])], ""
    except (json.JSONDecodeError, RecursionError, Unreadable):
        return [], said


def from_json(given: Any, what: str) -> Any:
    """A value that may have been kept as a JSON text."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Unreadable(f"{what} is not JSON") from error


def facts_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The tools that a row describes, for the template."""
    tools = from_json(row["tools"], "'tools'") if row.get("tools") else None
    return {"tools": tools} if tools else {}


def begun(system: Sequence[Message], messages: list[Message]) -> list[Message]:
    """The messages after a system prompt, unless they begin with one of their own."""
    return messages if messages and messages[0].role == "system" else [*system, *messages]

"""Replies to one prompt become a preference pair."""

from typing import Any

from danlu.data.formats.base import Unreadable
from danlu.samples import Message, PreferencePair


def preferred(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], facts: dict[str, Any] | None = None
) -> PreferencePair:
    """A pair whose replies begin where they first differ: all that they share is the prompt."""
    if chosen == rejected:
        raise Unreadable("both replies are the same")
    prompt, chosen, rejected = [*prompt], [*chosen], [*rejected]
    while min(len(chosen), len(rejected)) > 1 and chosen[0] == rejected[0]:
        prompt.append(chosen.pop(0))
        del rejected[0]
    for reply in (chosen, rejected):
        if not reply or reply[0].role != "assistant" or reply[-1].role != "assistant":
            raise Unreadable("a reply that is not the assistant's")
        if not any(message.content.strip() or message.facts for message in reply if message.role == "assistant"):
            raise Unreadable("an empty reply")
    if not any(message.role == "user" for message in prompt):
        raise Unreadable("no question before the replies")
    for message in prompt:
        message.train = False
    return PreferencePair(prompt, chosen, rejected, facts or {})

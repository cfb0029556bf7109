"""Samples that cannot be trained as they stand: what is amiss is taken off, and said."""

from danlu.data.formats.base import Unreadable
from danlu.samples import Conversation, Document, Message, PreferencePair, Sample


def tidy(sample: Sample, system: str | None) -> list[str]:
    """Mend a sample in place; returns a word for each change."""
    if isinstance(sample, Document):
        return []
    changes = tidy_chat(sample) if isinstance(sample, Conversation) else []
    messages = sample.prompt if isinstance(sample, PreferencePair) else sample.messages
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return changes


def tidy_chat(chat: Conversation) -> list[str]:
    """Mend a chat that does not go question, answer, question, answer."""
    changes = []
    roles = [message.role for message in chat.messages]
    opening = 1 if roles[:1] == ["system"] else 0
    asked = opening
    while asked < len(roles) and roles[asked] == "assistant":
        asked += 1
    if asked == len(roles):
        raise Unreadable("no question" if roles[opening:] else "no answer to learn from")
    if asked > opening:
        del chat.messages[opening:asked], roles[opening:asked]
        changes.append("an assistant's turn before any question was taken off")
    if "assistant" not in roles:
        raise Unreadable("no answer to learn from")
    if roles[-1] != "assistant":
        del chat.messages[len(roles) - roles[::-1].index("assistant") :]
        changes.append("a last question without an answer was taken off")
    answers = [message for message in chat.messages if message.train]
    empty = [message for message in answers if is_empty(message)]
    if len(empty) == len(answers):
        raise Unreadable("an empty answer" if answers else "no answer to learn from")
    for message in empty:
        message.train = False
    return [*changes, "an empty answer is not trained"] if empty else changes


def is_empty(message: Message) -> bool:
    """Whether nothing is said and no tool is called."""
    return not message.content.strip() and not message.facts.keys() & {"tool_calls", "reasoning_content"}

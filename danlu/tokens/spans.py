"""Which characters of a written chat are trained, and where its ids may not run together.

The mask is the difference of prefixes: an answer begins where the text that invites it ends, and ends where the text
up to it ends. That holds for any Jinja template, without `{% generation %}`.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerFast

from danlu.samples import Conversation, Document, Message
from danlu.tokens.templates.base import Scribe

GUARDS = [chr(code) for code in range(0xF8A0, 0xF8F0)]


@dataclass(slots=True)
class Written:
    """A sample as text.

    spans: (start, end) of what is trained; starts: where an answer begins, trained or not; cuts: where two
    neighbouring ids may not merge.
    """

    text: str
    spans: list[tuple[int, int]]
    starts: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    ends_open: bool = False
    """the template writes no end of turn, so the tokenizer's eos has to follow"""


class Markers:
    """The special tokens of a tokenizer, which nobody but the template may write."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        tokens = tokenizer.added_tokens_decoder.values()
        texts = sorted({str(token) for token in tokens if token.special}, key=len, reverse=True)
        self.first = {text[0] for text in texts if len(text) > 1}
        # Lookahead, so that overlapping markers are all found.
        self.pattern = re.compile("(?=" + "|".join(re.escape(text) for text in texts if len(text) > 1) + ")")

    def within(self, text: str) -> list[int]:
        """The places inside a text where a marker must be broken: after its first character."""
        if not any(letter in text for letter in self.first):
            return []
        return [found.start() + 1 for found in self.pattern.finditer(text)]


def insert(text: str, places: list[int], guard: str) -> str:
    """The text with a guard character at each place."""
    edges = [0, *places, len(text)]
    return guard.join(text[start:end] for start, end in pairwise(edges))


def write_document(document: Document, markers: Markers) -> Written:
    """A document is trained whole."""
    return Written(document.text, [(0, len(document.text))], cuts=markers.within(document.text))


def write_prompt(messages: list[Message], facts: dict[str, Any], scribe: Scribe, markers: Markers) -> Written:
    """What a model reads before it answers."""
    broken, guard = guarded(messages, markers)
    text = scribe.write(broken, invite=True, facts=facts)
    chat = Conversation(broken, facts)
    answers = [n for n, message in enumerate(broken) if message.role == "assistant"]
    return without_guards(Written(text, [], [start_of(n, chat, scribe, text) for n in answers]), guard)


def write_chat(conversation: Conversation, scribe: Scribe, markers: Markers) -> Written:
    """A chat as text, with the spans of its trained answers."""
    broken, guard = guarded(conversation.messages, markers)
    return without_guards(spans_of(Conversation(broken, conversation.facts), scribe), guard)


def guarded(messages: list[Message], markers: Markers) -> tuple[list[Message], str]:
    """The same chat, with every special token that somebody typed broken by a guard character; and that character."""
    places = [markers.within(message.content) for message in messages]
    if not any(places):
        return messages, ""
    typed = "".join(message.content for message in messages)
    guard = next(letter for letter in GUARDS if letter not in typed)
    broken = [insert(message.content, at, guard) for message, at in zip(messages, places, strict=True)]
    return [Message(old.role, new, old.train) for old, new in zip(messages, broken, strict=True)], guard


def without_guards(written: Written, guard: str) -> Written:
    """Guard characters become cuts."""
    if not guard:
        return written
    places = [found.start() for found in re.finditer(guard, written.text)]
    return Written(
        text=written.text.replace(guard, ""),
        spans=[(start - bisect_left(places, start), end - bisect_left(places, end)) for start, end in written.spans],
        starts=[start - bisect_left(places, start) for start in written.starts],
        cuts=[place - earlier for earlier, place in enumerate(places)],
        ends_open=written.ends_open,
    )


def spans_of(chat: Conversation, scribe: Scribe) -> Written:
    """Render once whole, and once up to each answer."""
    text = scribe.write(chat.messages, facts=chat.facts)
    written = Written(text, [])
    for n, message in enumerate(chat.messages):
        if message.role != "assistant" and not message.train:
            continue
        start = start_of(n, chat, scribe, text)
        written.starts.append(start)
        if message.train:
            written.spans.append((start, max(start, end_of(n, start, chat, scribe, text))))
    if chat.messages[-1].train and not scribe.ending.strip():
        written.text, written.ends_open = text[: written.spans[-1][1]], True
    return written


def start_of(n: int, chat: Conversation, scribe: Scribe, text: str) -> int:
    """Where the text that invites answer n ends; a template may invite with more than it writes afterwards."""
    invited = scribe.write(chat.messages[:n], invite=True, facts=chat.facts)
    return shared(invited, text)


def end_of(n: int, start: int, chat: Conversation, scribe: Scribe, text: str) -> int:
    """Where answer n and its end mark end; the whitespace that a template writes after the mark is not trained."""
    ending = scribe.ending
    upto = text if n == len(chat.messages) - 1 else scribe.write(chat.messages[: n + 1], facts=chat.facts)
    if text.startswith(upto):
        space = len(ending) - len(ending.rstrip()) if upto.endswith(ending) else len(upto) - len(upto.rstrip())
        return len(upto) - space
    # Some templates rewrite history (Qwen3 drops earlier thoughts): then the answer ends at its first end mark.
    mark = ending.strip()
    found = text.find(mark, start) if mark else -1
    return found + len(mark) if found >= 0 else shared(upto, text)


def shared(left: str, right: str) -> int:
    """How many characters two texts begin with alike."""
    if right.startswith(left):
        return len(left)
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(right))

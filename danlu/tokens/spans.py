"""Which characters of a written chat are trained, and where its ids may not run together.

The mask is the difference of prefixes: an answer begins where the text that invites it ends, and ends where the text
up to it ends. That holds for any Jinja template, without `{% generation %}`.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerFast

from danlu.core.errors import UserError
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
        self.named = {name: text for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
        first = "".join(re.escape(text[0]) for text in texts if len(text) > 1)
        self.first = re.compile(f"[{first}]" if first else "(?!)")
        # Lookahead, so that overlapping markers are all found.
        self.pattern = re.compile("(?=" + "|".join(re.escape(text) for text in texts if len(text) > 1) + ")")

    def within(self, text: str) -> list[int]:
        """The places inside a text where a marker must be broken: after its first character."""
        if not self.first.search(text):
            return []
        return [found.start() + 1 for found in self.pattern.finditer(text)]

    def text_of(self, name: str) -> str:
        """A special token by its name, such as title_token."""
        if name not in self.named:
            raise UserError(
                f"the tokenizer has no {name}, which marks a part of these rows; add it to its vocabulary and to "
                f'tokenizer_config.json as "extra_special_tokens": {{"{name}": "<|…|>"}}, or read them without marks '
                "(format: text, code, question_answer or user_assistant)"
            )
        return self.named[name]


def insert(text: str, places: list[int], guard: str) -> str:
    """The text with a guard character at each place."""
    edges = [0, *places, len(text)]
    return guard.join(text[start:end] for start, end in pairwise(edges))


def write_document(document: Document, markers: Markers) -> Written:
    """A document is trained whole, with the special tokens that its format has set into it."""
    text, cuts, end = "", [], 0
    for start, name in [*document.marks, (len(document.text), "")]:
        part = document.text[end:start]
        cuts += [len(text) + at for at in markers.within(part)]
        text, end = text + part + (markers.text_of(name) if name else ""), start
    return Written(text, [(0, len(text))], cuts=cuts)


def write_prompt(messages: list[Message], facts: dict[str, Any], scribe: Scribe, markers: Markers) -> Written:
    """What a model reads before it answers."""
    chat, guard = guarded(Conversation(messages, facts), markers)
    text = scribe.write(chat.messages, invite=True, facts=chat.facts)
    answers = [n for n, message in enumerate(messages) if message.role == "assistant"]
    return without_guards(Written(text, [], [start_of(n, chat, scribe, text) for n in answers]), guard)


def write_chat(conversation: Conversation, scribe: Scribe, markers: Markers) -> Written:
    """A chat as text, with the spans of its trained answers."""
    chat, guard = guarded(conversation, markers)
    return without_guards(spans_of(chat, scribe), guard)


def guarded(chat: Conversation, markers: Markers) -> tuple[Conversation, str]:
    """The same chat, with every special token that somebody typed broken by a guard character; and that character."""
    told = [facts for facts in [chat.facts, *[message.facts for message in chat.messages]] if facts]
    typed = [message.content for message in chat.messages]
    if told:
        typed += texts_in(told)
    if not any(map(markers.within, typed)):
        return chat, ""
    guard = next(letter for letter in GUARDS if not any(letter in text for text in typed))

    def broken(value: Any) -> Any:
        if isinstance(value, str):
            return insert(value, markers.within(value), guard)
        if isinstance(value, dict):
            return {broken(key): broken(inner) for key, inner in value.items()}
        return [broken(inner) for inner in value] if isinstance(value, list | tuple) else value

    messages = [Message(one.role, broken(one.content), one.train, broken(one.facts)) for one in chat.messages]
    return Conversation(messages, broken(chat.facts)), guard


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.items() if isinstance(value, dict) else value:
            yield from texts_in(inner)


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

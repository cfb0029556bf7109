"""Chats of one shape, such as question and answer, differ only in their words: Jinja writes each shape once."""

import re
from collections.abc import Callable, Sequence

from jinja2 import Environment

from danlu.samples import Message
from danlu.tokens.opaque import looks

SLOT = re.compile("\uf8f3([0-9]+)\uf8f4")
MOST, LONGEST = 1000, 16

Render = Callable[[Sequence[Message], bool], str]


class Shapes:
    """The texts around the words, by the roles of a chat."""

    def __init__(self, jinja: str, environment: Environment, render: Render) -> None:
        self.looks = looks(environment.parse(jinja))
        self.render = render
        self.known: dict[tuple, list[str]] = {}

    def write(self, messages: Sequence[Message], invite: bool) -> str:
        """The chat as text."""
        if self.looks == "inside" or len(messages) > LONGEST:
            return self.render(messages, invite)
        said: list[str] = []
        roles: list[str | bool] = [invite]
        for message in messages:  # a million times: no generators, each of which costs more than the lines in it
            words = message.content
            if message.facts or (self.looks == "at the ends" and words != words.strip()):
                return self.render(messages, invite)
            said.append(words)
            roles += (message.role, words == "")
        key = tuple(roles)
        shape = self.known.get(key)
        if shape is None:
            shape = self.learn(messages, invite)
            if len(self.known) < MOST:
                self.known[key] = shape
        text = shape.copy()
        text[1::2] = [said[int(slot)] for slot in shape[1::2]]
        return "".join(text)

    def learn(self, messages: Sequence[Message], invite: bool) -> list[str]:
        """Texts and, between them, the numbers of the messages that stand there; empty ones stay empty."""
        slots = [message.content and f"\uf8f3{n}\uf8f4" for n, message in enumerate(messages)]
        chat = [Message(message.role, slot) for message, slot in zip(messages, slots, strict=True)]
        return SLOT.split(self.render(chat, invite))

"""Talk with a model in the terminal, or ask it one thing from a script."""

import sys
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from danlu.core.errors import UserError
from danlu.core.terminal import CONTROL
from danlu.generate.base import GenerationConfig, Generator
from danlu.generate.local import Local
from danlu.samples import Message
from danlu.tokens.templates.base import Template

WELCOME = "Type a message; `clear` forgets the talk so far, `exit` ends it, Ctrl-C stops an answer."


def chat(
    path: str | Path,
    prompt: str | None = None,
    system: str | None = None,
    *,
    template: Template | None = None,
    config: GenerationConfig | None = None,
    device: str = "cpu",
) -> None:
    """Talk with the model of a run, adapter, folder or `builtin:NAME`; given a prompt, print just the answer."""
    model = Local.open(path, template=template, device=device)
    talk = Talk(model, system, config or GenerationConfig())
    if prompt is not None:
        print("".join(talk.say(prompt)))
        return
    print(WELCOME)
    converse(talk)


def converse(talk: "Talk", ask: Callable[[str], str] = input) -> None:
    """Read, answer, and so on until `exit` or the end of the input."""
    while True:
        try:
            words = ask("\nUser: ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if words == "exit":
            return
        if words == "clear":
            talk.clear()
            print("History has been removed.")
        elif words:
            show(talk, words)


def show(talk: "Talk", words: str) -> None:
    """Write one answer as it comes; Ctrl-C stops the answer, not the talk."""
    print("Assistant: ", end="", flush=True)
    try:
        with closing(talk.say(words)) as pieces:
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
        print()
    except KeyboardInterrupt:
        print(" [stopped]")
    except UserError as error:
        print(f"[{error}]")


class Talk:
    """A talk so far, and who answers."""

    def __init__(self, model: Generator, system: str | None, config: GenerationConfig) -> None:
        self.model, self.config = model, config
        self.opening = [Message("system", system)] if system else []
        self.messages = list(self.opening)

    def clear(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = list(self.opening)

    def say(self, words: str) -> abc.Generator[str, None, None]:
        """The answer in pieces; an answer that is cut off is remembered as far as it came."""
        chat = [*self.messages, Message("user", words)]
        said: list[str] = []
        with closing(self.model.stream(chat, self.config)) as stream:
            try:
                for piece in without_control(stream):
                    said.append(piece)
                    yield piece
            finally:
                if said:
                    self.messages = [*chat, Message("assistant", "".join(said))]


def without_control(pieces: Iterable[str]) -> Iterator[str]:
    """Text without what would move the cursor, colour the terminal, set its title or turn the reading direction."""
    yield from (clean for piece in pieces if (clean := CONTROL.sub("", piece)))

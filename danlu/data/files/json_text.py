"""JSON rows: one value a line, or a list of them, read a piece at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from danlu.data.files.damage import Answer, Damage
from danlu.data.files.unpack import blocks, decode, raw_lines
from danlu.data.files.url import File

HALF = "half of a character (a lone surrogate)"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
SPACE = re.compile(r"[ \t\r\n]*")
DELIMITERS = (",", "]", " ", "\n", "\r", "\t")
NEAR_END = 16
"""so close to the end of what was read so far, an error may only mean that a value goes on (`tru`, `-Infini`, `1.`)"""
NOT_JSON = "not JSON"


def line_rows(file: File, start: int, answer: Answer) -> Iterator[tuple[int, Any]]:
    """One JSON value a line; empty lines are no rows. The first `start` rows are passed over unread."""
    read = json.JSONDecoder().raw_decode
    for number, line in rows_of_bytes(file, start):
        try:  # the way of nearly every row is short: at 3 microseconds a row each call is felt
            text = line.decode()
            row, end = read(text)
            if end == len(text) and "\\u" not in text:
                yield number, row
                continue
        except (ValueError, RecursionError):
            pass
        try:
            row = parse(decode(line, file, number), f"{file}:{number}")
        except Damage as damage:
            row = answer(damage)
        yield number, row


def rows_of_bytes(file: File, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, as they lie, without the first `start` of them."""
    every = raw_lines(file)
    while start and (found := next(every, None)) is not None:
        start -= not (found[1].isspace() or not found[1])
    for number, line in every:
        if line and not line.isspace():
            yield number, line


def parse(text: str, place: str) -> Any:
    """A JSON value, or an error that shows where it breaks."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError too
        column = getattr(error, "colno", 1)
        near = text[max(0, column - 21) : column + 20]
        raise Damage(f"{place}: not JSON ({error}), near {near!r}; mend or remove this line", NOT_JSON) from error
    check_characters(text, row, place)
    return row


def check_characters(text: str, row: Any, place: str) -> None:
    """Refuse half of a character (`\\ud83d` without its other half), which no tokenizer can read."""
    if "\\u" not in text or not SURROGATE.search(text):
        return
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Damage(
            f"{place}: holds half of a character, {error.object[error.start]!r}; a text was cut inside an emoji; "
            "mend or remove this row",
            HALF,
        ) from error


def is_list(file: File) -> bool:
    """Whether a .json file is one list, or one value a line: many .json files are really .jsonl."""
    start = next((block for block in blocks(file) if block.strip()), b"").lstrip()
    if not start.startswith(b"["):
        return False
    first = start.partition(b"\n")[0]
    try:  # lines that are lists themselves
        return b"\n" not in start or not isinstance(json.loads(first), list) or not start[len(first) :].strip()
    except ValueError:
        return True


def list_rows(file: File, start: int, answer: Answer) -> Iterator[tuple[int, Any]]:
    """The items of a JSON list. Memory holds one item at a time, whatever the length of the list."""
    for number, row, text in Items(file):
        if number <= start:
            continue
        try:
            check_characters(text, row, f"{file}: item {number}")
        except Damage as damage:
            row = answer(damage)
        yield number, row


class Items:
    """Goes through a list's text: `json` reads one item after the other out of what has come so far."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.blocks = blocks(file)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.reader = json.JSONDecoder()
        self.text, self.at, self.whole = "", 0, False
        self.line, self.column = 1, 1
        """where `text` begins in the file"""

    def __iter__(self) -> Iterator[tuple[int, Any, str]]:
        self.expect("[")
        number, mark = 0, self.expect("]") if self.peek() == "]" else ","
        while mark == ",":
            number += 1
            row, text = self.item()
            yield number, row, text
            mark = self.expect(",", "]")
        if self.peek():
            raise self.broken(self.at, "the list has ended, and more follows")

    def item(self) -> tuple[Any, str]:
        """The next value and its text; more text is fetched until it is whole."""
        self.peek()
        size = 1
        while True:
            try:
                row, end = self.reader.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") and not self.whole
                if not (cut or self.may_go_on(error.pos)):
                    raise self.broken(error.pos, error.msg) from error
            except (ValueError, RecursionError) as error:
                raise self.broken(self.at, str(error)) from error
            else:
                if self.text[end : end + 1] in DELIMITERS or not self.may_go_on(end):
                    text, self.at = self.text[self.at : end], end
                    return row, text
            size = self.fetch(size)

    def may_go_on(self, at: int) -> bool:
        """Whether a place is so near the end of the text that what comes next may change what stands there."""
        return not self.whole and at > len(self.text) - NEAR_END

    def fetch(self, size: int) -> int:
        """Take `size` more blocks, and say how many to take next: twice as many, for an item that is long."""
        self.line, self.column = self.position(self.at)
        text = [self.text[self.at :]]
        try:
            for _ in range(size):
                block = next(self.blocks, None)
                self.whole = block is None
                text.append(self.decoder.decode(block or b"", final=self.whole))
                if self.whole:
                    break
        except UnicodeDecodeError as error:
            raise Damage(
                f"{self.file}: not UTF-8 in or after line {self.line} ({error.reason}); "
                "convert the file, for example with: iconv -f ENCODING -t UTF-8",
                "not UTF-8",
            ) from error
        self.text, self.at = "".join(text), 0
        return size * 2

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            assert space is not None
            self.at = space.end()
            if self.at < len(self.text) or self.whole:
                return self.text[self.at : self.at + 1]
            self.fetch(1)

    def expect(self, *marks: str) -> str:
        """Take one of these characters."""
        found = self.peek()
        if found not in marks or not found:
            raise self.broken(self.at, f"expected {' or '.join(marks)}, found {found or 'the end'}")
        self.at += 1
        return found

    def position(self, at: int) -> tuple[int, int]:
        """Line and column of a place in the text."""
        newline = self.text.rfind("\n", 0, at)
        column = at - newline if newline >= 0 else self.column + at
        return self.line + self.text.count("\n", 0, at), column

    def broken(self, at: int, why: str) -> Damage:
        """Where the list breaks."""
        line, column = self.position(at)
        return Damage(
            f"{self.file}:{line}: not JSON at column {column} ({why}); mend the list there",
            "the rest of a list that is not JSON",
        )

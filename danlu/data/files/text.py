"""Plain text as rows {text}: a line, a document or a whole file each."""

from collections.abc import Iterator
from typing import Any, Literal

from danlu.data.files.damage import Answer, Damage, Damaged
from danlu.data.files.unpack import decode, lines, raw_lines
from danlu.data.files.url import File

Unit = Literal["line", "document", "file"]


def text_rows(file: File, start: int, answer: Answer, unit: Unit) -> Iterator[tuple[int, Any]]:
    """The units of a text after the first `start`, each with the number of its first line."""
    if unit == "line":
        yield from line_texts(file, start, answer)
        return
    texts = documents(file) if unit == "document" else iter([(1, "\n".join(line for _, line in lines(file)))])
    for at, (number, text) in enumerate(texts):
        if at >= start:
            yield number, {"text": text}


def line_texts(file: File, start: int, answer: Answer) -> Iterator[tuple[int, Any]]:
    """Each line, blank ones too, so that a report counts them."""
    for number, line in raw_lines(file):
        if number <= start:
            continue
        row: dict[str, str] | Damaged
        try:
            row = {"text": decode(line, file, number)}
        except Damage as damage:
            row = answer(damage)
        yield number, row


def documents(file: File) -> Iterator[tuple[int, str]]:
    """Paragraphs parted by blank lines."""
    first, held = 0, list[str]()
    for number, line in lines(file):
        if line.strip():
            first = first if held else number
            held.append(line)
        elif held:
            yield first, "\n".join(held)
            held = []
    if held:
        yield first, "\n".join(held)

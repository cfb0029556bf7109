"""How far tokenising is: a bar on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from danlu.data.chunks import Chunk

log = logging.getLogger(__name__)

EVERY_SECONDS = 10


def watched(chunks: Iterable[Chunk], name: str) -> Iterator[Chunk]:
    """The same chunks, with their rows counted for people."""
    console = Console(stderr=True)
    return on_terminal(chunks, name, console) if console.is_terminal else in_lines(chunks, name)


def on_terminal(chunks: Iterable[Chunk], name: str, console: Console) -> Iterator[Chunk]:
    """A line that moves."""
    words = TextColumn("tokenising {task.description}: {task.completed:,.0f} rows")
    columns = (SpinnerColumn(), words, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None)
        for chunk in chunks:
            progress.advance(task, chunk.report.rows_in)
            yield chunk


def in_lines(chunks: Iterable[Chunk], name: str) -> Iterator[Chunk]:
    """A line of log every few seconds."""
    rows, said = 0, time.monotonic()
    for chunk in chunks:
        rows += chunk.report.rows_in
        if time.monotonic() - said > EVERY_SECONDS:
            said = time.monotonic()
            log.info("tokenising %s: %s rows", name, f"{rows:,}")
        yield chunk

"""Fetch public data sets by name: say what each is and may be used for, download it, and make it ready."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from danlu.core.errors import DataError, SetupError, UserError
from danlu.data.fetch.ask import client
from danlu.data.fetch.download import Progress
from danlu.data.fetch.sets import Outcome, Watch, fetch_set, known

log = logging.getLogger(__name__)

EVERY_SECONDS = 10
SAID = {
    "fetched": "{path}: {downloaded} files downloaded",
    "here": "{path}: here already, nothing downloaded",
    "shipped": "{path}: comes with danlu",
    "yours": "{path}: there already, and not from here: left as it is; remove it to fetch the set",
}


def fetch(names: Sequence[str], to: Path, *, console: Console | None = None) -> None:
    """Every set that is named; what fails is said at the end, when the others are here."""
    console = console or Console()
    for name in names:
        known(name)
    failed: list[UserError] = []
    with client() as asking, bars() as progress:
        watch = on_terminal(progress) if progress.console.is_terminal else in_lines
        for name in names:
            entry = known(name)
            console.print(Text(f"{name}: {entry.about}; licence: {entry.licence} ({entry.page})"), soft_wrap=True)
            try:
                console.print(Text(words(fetch_set(name, to, asking, watch))), soft_wrap=True)
            except UserError as error:
                failed.append(error)
    if len(names) == 1 and failed:
        raise failed[0]
    if failed:
        told = "\n".join(str(error) for error in failed)
        kind = DataError if failed[0].exit_code == DataError.exit_code else SetupError
        raise kind(f"{len(failed)} of {len(names)} sets were not fetched:\n{told}") from failed[0]


def words(outcome: Outcome) -> str:
    """What became of a set."""
    return SAID[outcome.state].format(path=outcome.path, downloaded=outcome.downloaded)


def bars() -> Bars:
    """Name, bar, bytes, speed and time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def on_terminal(progress: Bars) -> Watch:
    """A bar for each file."""

    def watch(name: str) -> Progress:
        task = progress.add_task(name, total=None)
        return lambda here, total: progress.update(task, completed=here, total=total, visible=here != total)

    return watch


def in_lines(name: str) -> Progress:
    """A line of log every few seconds."""
    said = time.monotonic()

    def told(here: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said > EVERY_SECONDS:
            said = time.monotonic()
            log.info("%s: %s of %s bytes", name, f"{here:,}", f"{total:,}" if total else "unknown many")

    return told

"""The files of a set as they came become one file of rows, which has its name only when it is whole."""

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from danlu.core.errors import DataError
from danlu.core.files import fsync, sha256_of
from danlu.data.files.damage import Damaged
from danlu.data.files.json_text import HALF
from danlu.data.files.read import read_rows
from danlu.data.files.unpack import blocks

log = logging.getLogger(__name__)

LONGEST_VALUE = 2048
"""characters of a shared turn that are kept"""
LINE_ENDS = dict.fromkeys(map(ord, "\u2028\u2029"))
"""characters that some readers take for the end of a line"""


def make(process: str, files: Sequence[Path], to: Path) -> str:
    """Write `to` from some files; returns its SHA-256."""
    to.parent.mkdir(parents=True, exist_ok=True)
    for left in to.parent.glob(f".{to.name}.tmp-*"):
        left.unlink()  # of a process that was killed at it, as the lock of the set is ours
    aside = to.with_name(f".{to.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with open(aside, "wb") as out:
            for block in blocks_of(process, files, as_list=to.suffix == ".json"):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        found = sha256_of(aside)
        os.replace(aside, to)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync(to.parent)
    return found


def blocks_of(process: str, files: Sequence[Path], *, as_list: bool) -> Iterator[bytes]:
    """The bytes of the file that is made."""
    if process == "copy":
        [file] = files
        return blocks(file)
    change: dict[str, Callable[[Any], Any]] = {"merge": as_it_is, "clean": without_line_ends, "sharegpt": shared_chat}
    changed = (new for file in files for row in rows_of(file) if (new := change[process](row)) is not None)
    return in_list(changed) if as_list else (dumped(row) + b"\n" for row in changed)


def rows_of(file: Path) -> Iterator[Any]:
    """Every row of a file but those with half of a character, which are counted; anything else that is wrong stops."""
    halves = 0
    for number, row in read_rows(file, on_damage="skip"):
        if not isinstance(row, Damaged):
            yield row
        elif row.reason == HALF:
            halves += 1
        else:
            raise DataError(f"{file}:{number}: {row.reason}; delete the file and fetch the set again")
    if halves:
        log.warning("%s: %s rows hold half of a character and are left out", file, f"{halves:,}")


def in_list(rows: Iterable[Any]) -> Iterator[bytes]:
    """A JSON list with a row on each line."""
    before = b"[\n"
    for row in rows:
        yield before + dumped(row)
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def dumped(row: Any) -> bytes:
    """A row as JSON."""
    return json.dumps(row, ensure_ascii=False).encode()


def as_it_is(row: Any) -> Any:
    """No change."""
    return row


def without_line_ends(row: Any) -> Any:
    """A row whose texts hold no U+2028 or U+2029."""
    if isinstance(row, str):
        return row.translate(LINE_ENDS)
    if isinstance(row, dict):
        return {key: without_line_ends(value) for key, value in row.items()}
    return [without_line_ends(value) for value in row] if isinstance(row, list) else row


def shared_chat(row: Any) -> Any:
    """A shared chat with each turn cut; turns that are no text are dropped, and a chat without any left is too."""
    turns = row.get("conversations") if isinstance(row, dict) else None
    said = [turn for turn in turns or [] if isinstance(turn, dict) and isinstance(turn.get("value"), str)]
    cut = [turn | {"value": turn["value"][:LONGEST_VALUE]} for turn in said]
    return without_line_ends(row | {"conversations": cut}) if cut else None

"""Where rows come from: files, folders and globs, read as a stream of rows with their places."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from danlu.core.parts import Config
from danlu.data.files.damage import OnDamage
from danlu.data.files.find import find_files, stem_of
from danlu.data.files.read import read_files
from danlu.data.files.text import Unit
from danlu.data.files.url import File
from danlu.data.formats import formats
from danlu.data.formats.base import Format

Place = tuple[int, int]
"""(number of the file in its source, number of the row in that file)"""


class Source(Config):
    """One data set: some files of one kind, and how their rows are read."""

    path: str | list[str]
    """a file, folder, glob, URL, or a list of them: json, jsonl, txt, csv, tsv, parquet; also packed as .zst or .gz"""
    name: str | None = None
    """what reports call it; the first file's name if not given"""
    format: Annotated[Format | None, formats] = None
    """the shape of a row; recognised from the rows themselves if not given"""
    max_rows: int | None = None
    """read only so many rows"""
    system: str | None = None
    """the system prompt of chats that have none"""
    unit: Unit = "line"
    """what is one row of a text file: a line, a document (blank lines part them) or the whole file"""
    on_damage: OnDamage = "stop"
    """what happens where a file or row cannot be read: stop, or skip it and count it"""

    @cached_property
    def files(self) -> list[File]:
        """The files meant."""
        return find_files(self.path)

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or stem_of(self.files[0])

    def rows(self, start: int = 0) -> Iterator[tuple[Place, Any]]:
        """Every row after the first `start`, with its place; a `Damaged` stands where rows were lost."""
        left = None if self.max_rows is None else max(0, self.max_rows - start)
        every = read_files(self.files, start, unit=self.unit, on_damage=self.on_damage)
        for at, number, row in islice(every, left):
            yield (at, number), row

    def where(self, place: Place) -> str:
        """file:row, for people."""
        return f"{self.files[place[0]]}:{place[1]}"


def listed(given: Any) -> Any:
    """A path, a list of paths or mappings, one mapping, or a mapping of names: all become a list of mappings."""
    if isinstance(given, str | Path) or (isinstance(given, dict) and "path" in given):
        given = [given]
    elif isinstance(given, dict):
        given = [{"name": name} | (one if isinstance(one, dict) else {"path": one}) for name, one in given.items()]
    if not isinstance(given, list):
        return given
    return [{"path": str(one)} if isinstance(one, str | Path) else one for one in given]


Sources = Annotated[list[Source], BeforeValidator(listed)]


def labels(sources: list[Source]) -> list[str]:
    """A name for each source, numbered where two would share one."""
    names = [source.label for source in sources]
    return [name if names.index(name) == n else f"{name}-{names[:n].count(name) + 1}" for n, name in enumerate(names)]

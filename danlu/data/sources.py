"""Where rows come from: files, folders and globs, read as a stream of rows with their places."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from danlu.core.errors import DataError
from danlu.core.parts import Config
from danlu.data.checksum import check_sha1
from danlu.data.files.damage import OnDamage
from danlu.data.files.find import find_files, stem_of
from danlu.data.files.read import read_files
from danlu.data.files.text import Unit
from danlu.data.files.url import File
from danlu.data.formats import formats
from danlu.data.formats.base import Format
from danlu.data.hub.address import hub_set
from danlu.data.hub.files import hub_files
from danlu.data.registry import advice, looked_up

Place = tuple[int, int]
"""(number of the file in its source, number of the row in that file)"""


class Source(Config):
    """One data set: some files of one kind, and how their rows are read."""

    path: str | list[str] = ""
    """a file, folder, glob, URL, hub id such as tatsu-lab/alpaca, registered name, or a list of them"""
    dataset: str | None = None
    """a registered name, looked up where `registry` says; `danlu data list` prints them"""
    registry: str | None = None
    """the folder of the dataset_info.json that has the name; data/ and danlu's own list if not given"""
    name: str | None = None
    """what reports call it; the registered name or the first file's name if not given"""
    format: Annotated[Format | None, formats] = None
    """the shape of a row; recognised from the rows themselves if not given"""
    columns: dict[str, str | None] = {}
    """keys by another name: the key that formats know, and the one in the file; null for one that is left out"""
    max_rows: Annotated[int | None, Field(ge=1)] = None
    """read only so many rows"""
    max_files: Annotated[int | None, Field(ge=1)] = None
    """read only so many files"""
    system: str | None = None
    """the system prompt of chats that have none"""
    unit: Unit = "line"
    """what is one row of a text file: a line, a document (blank lines part them) or the whole file"""
    on_damage: OnDamage = "stop"
    """what happens where a file or row cannot be read: stop, or skip it and count it"""
    sha1: str | None = None
    """what its one file should hash to"""
    strict: bool = False
    """stop, and do not only warn, where the file has another hash"""

    @model_validator(mode="before")
    @classmethod
    def _look_up(cls, given: Any) -> Any:
        """A registered name becomes a path and how it is read, so that the run as it is kept needs no registry."""
        return looked_up(given) if isinstance(given, dict) else given

    @cached_property
    def files(self) -> list[File]:
        """The files meant."""
        found = self._found()[: self.max_files]
        if self.sha1:
            check_sha1(found, self.sha1, strict=self.strict)
        return found

    def _found(self) -> list[File]:
        paths: list[str] = []
        for path in [self.path] if isinstance(self.path, str) else self.path:
            wanted = hub_set(path)
            paths += [str(file) for file in hub_files(wanted)] if wanted else [path]
        try:
            return find_files(paths)
        except DataError as error:
            raise DataError(f"{error}{advice(self.dataset, paths[0])}") from error

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or self.dataset or stem_of(self.files[0])

    def rows(self, start: int = 0, files: range | None = None) -> Iterator[tuple[Place, Any]]:
        """Every row after the first `start` of all files, or of some; a `Damaged` stands where rows were lost."""
        files = range(len(self.files)) if files is None else files
        left = None if self.max_rows is None else max(0, self.max_rows - start)
        every = read_files(self.files[files.start : files.stop], start, unit=self.unit, on_damage=self.on_damage)
        for at, number, row in islice(every, left):
            yield (files.start + at, number), renamed(row, self.columns) if self.columns else row

    def where(self, place: Place) -> str:
        """file:row, for people."""
        return f"{self.files[place[0]]}:{place[1]}"


def renamed(row: Any, columns: dict[str, str | None]) -> Any:
    """A row under the keys that formats know; theirs are moved, not copied, and null leaves ours out."""
    if not isinstance(row, dict):
        return row
    theirs = set(columns.values())
    rest = {key: value for key, value in row.items() if key not in theirs and key not in columns}
    return rest | {ours: row[key] for ours, key in columns.items() if key is not None and key in row}


def listed(given: Any) -> Any:
    """A path, a list of paths or mappings, one mapping, or a mapping of names: all become a list of mappings."""
    if isinstance(given, str | Path) or (isinstance(given, dict) and {"path", "dataset"} & given.keys()):
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

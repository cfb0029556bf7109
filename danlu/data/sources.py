"""Where rows come from: files, folders and globs, read as a stream of rows with their places."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from danlu.core.errors import DataError
from danlu.core.parts import Config
from danlu.data.files.find import find_files, stem_of
from danlu.data.files.read import read_rows
from danlu.data.formats import formats
from danlu.data.formats.base import Format
from danlu.samples import Sample

LOOKED_AT = 20

Place = tuple[int, int]
"""(number of the file in its source, number of the row in that file)"""


class Source(Config):
    """One data set: some files of one kind, and how their rows are read."""

    path: str | list[str]
    """a file, folder, glob, or a list of them: json, jsonl, txt, csv, tsv, parquet; also packed as .zst or .gz"""
    name: str | None = None
    """what reports call it; the first file's name if not given"""
    format: Annotated[Format | None, formats] = None
    """the shape of a row; recognised from the rows themselves if not given"""
    max_rows: int | None = None
    """read only so many rows"""
    system: str | None = None
    """the system prompt of chats that have none"""

    @cached_property
    def files(self) -> list[Path]:
        """The files meant."""
        return find_files(self.path)

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or stem_of(self.files[0])

    def rows(self) -> Iterator[tuple[Place, Any]]:
        """Every row with its place."""
        every = ((at, number, row) for at, file in enumerate(self.files) for number, row in read_rows(file))
        for at, number, row in islice(every, self.max_rows):
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


def format_of(source: Source, learns_from: tuple[type[Sample], ...]) -> Format:
    """The format named, or the one that the first rows have."""
    if source.format is not None:
        if source.format.gives not in learns_from:
            raise DataError(
                f"{source.path}: format {formats.name_of(source.format)} gives {source.format.gives.__name__}, "
                f"and this objective learns from {words(learns_from)}"
            )
        return source.format
    first = list(islice(source.rows(), LOOKED_AT))
    if not first:
        raise DataError(f"{source.path}: no rows in it")
    kinds = [formats[name] for name in formats]
    fitting = [kind for kind in kinds if all(kind.fits(row) for _, row in first)]
    fitting = fitting or [kind for kind in kinds if kind.fits(first[0][1])]
    useful = [kind for kind in fitting if kind.gives in learns_from]
    if len(useful) != 1:
        raise DataError(unclear(source, first[0], fitting, useful, learns_from))
    return useful[0]()


def words(kinds: tuple[type, ...]) -> str:
    """Class names in a row."""
    return " or ".join(kind.__name__ for kind in kinds)


def unclear(
    source: Source, first: tuple[Place, Any], fitting: list, useful: list, learns_from: tuple[type, ...]
) -> str:
    """Why no format, or more than one, reads these rows."""
    place, row = first
    keys = f"keys {', '.join(map(str, row))}" if isinstance(row, dict) else type(row).__name__
    found = f"{source.where(place)}: a row of {keys}"
    names = [kind.__module__.rpartition(".")[2] for kind in (useful or fitting)]
    if useful:
        return f"{found} fits the formats {' and '.join(names)}; say which with format: {names[0]}"
    if fitting:
        kinds = words(tuple({kind.gives for kind in fitting}))
        return f"{found} fits {', '.join(names)}, which gives {kinds}; this objective learns from {words(learns_from)}"
    shapes = "".join(f"\n  {name}: {formats[name].shape}" for name in formats if formats[name].gives in learns_from)
    return f"{found} fits no format; rename its keys to one of these shapes, or name a format:{shapes}"

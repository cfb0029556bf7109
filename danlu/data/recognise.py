"""Which format a source's rows have: seen from the rows themselves, never from a file's name."""

import logging
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from danlu.core.errors import DataError
from danlu.data.files.damage import Damaged
from danlu.data.formats import formats
from danlu.data.formats.base import Format
from danlu.data.reading import keys_of
from danlu.data.sources import Place, Source
from danlu.samples import Sample

log = logging.getLogger(__name__)

LOOKED_AT, SHOWN = 20, 4


def format_of(source: Source, learns_from: tuple[type[Sample], ...]) -> Format:
    """The format named, or the one that the first rows have."""
    if source.format is not None:
        if source.format.gives not in learns_from:
            raise DataError(
                f"{source.path}: format {formats.name_of(source.format)} gives {source.format.gives.__name__}, "
                f"and this objective learns from {words(learns_from)}"
            )
        return source.format
    whole = (found for found in source.rows() if not isinstance(found[1], Damaged))
    first = list(islice(whole, LOOKED_AT))
    if not first:
        raise DataError(f"{source.path}: no rows in it")
    rows = [row for _, row in first]
    fitting = formats_of(rows) or formats_of(rows[:1])
    useful = [kind for kind in fitting if kind.gives in learns_from]
    if len(useful) != 1:
        raise DataError(unclear(source, first[0], fitting, useful, learns_from))
    found = useful[0]()
    log.info("%s: its rows have the format %s", source.path, formats.name_of(found))
    return found


def formats_of(rows: Sequence[Any]) -> list[type[Format]]:
    """The formats that fit all rows; where one is a special case of another, only the special one."""
    kinds = [formats[name] for name in formats]
    fitting = [kind for kind in kinds if kind.recognised and all(kind.fits(row) for row in rows)]
    return [kind for kind in fitting if not any(issubclass(other, kind) for other in fitting if other is not kind)]


def words(kinds: tuple[type, ...]) -> str:
    """Class names in a row."""
    return " or ".join(kind.__name__ for kind in kinds)


def unclear(
    source: Source, first: tuple[Place, Any], fitting: list, useful: list, learns_from: tuple[type, ...]
) -> str:
    """Why no format, or more than one, reads these rows."""
    place, row = first
    found = f"{source.where(place)}: {keys_of(row)}"
    names = [kind.__module__.rpartition(".")[2] for kind in (useful or fitting)]
    if useful:
        return f"{found} fits the formats {' and '.join(names)}; say which with format: {names[0]}"
    if fitting:
        kinds = words(tuple({kind.gives for kind in fitting}))
        return f"{found} fits {', '.join(names)}, which gives {kinds}; this objective learns from {words(learns_from)}"
    shapes = shapes_like(row, learns_from)
    return f"{found} fits no format; rename its keys to one of these shapes, or name a format:{shapes}"


def shapes_like(row: Any, learns_from: tuple[type, ...]) -> str:
    """The shapes whose keys are most like a row's, a line each, and the names of the others."""
    kinds = {name: formats[name] for name in formats if formats[name].gives in learns_from}
    keys = [str(key) for key in row] if isinstance(row, dict) else []

    def unlike(name: str) -> int:
        known = re.findall(r"\w+", kinds[name].shape)
        return -sum(bool(get_close_matches(key, known, 1, 0.75)) for key in keys)

    nearest = sorted(kinds, key=unlike)
    lines = [f"{name}: {kinds[name].shape}" for name in nearest[:SHOWN]]
    others = [f"others: {', '.join(nearest[SHOWN:])}"] if nearest[SHOWN:] else []
    return "".join(f"\n  {line}" for line in [*lines, *others])

"""A row of a source becomes samples, or is dropped for a reason that is counted."""

from typing import Any

from danlu.core.errors import DataError
from danlu.data.files.damage import Damaged
from danlu.data.formats import formats
from danlu.data.formats.base import Format, Unreadable
from danlu.data.report import SourceReport
from danlu.data.sources import Place, Source
from danlu.data.tidy import tidy
from danlu.samples import Sample


def samples_of(source: Source, format: Format, place: Place, row: Any, report: SourceReport) -> list[Sample]:
    """What a row gives; a row of another shape is an error where nobody said which shape was meant."""
    if isinstance(row, Damaged):
        report.lose(row.reason, row.rows, source.where(place))
        return []
    if source.format is None and not format.fits(row):
        raise DataError(
            f"{source.where(place)}: {keys_of(row)} among rows of {formats.name_of(format)}, {format.shape}; "
            f"give each shape a source of its own, or say format: {formats.name_of(format)} to drop what it cannot read"
        )
    kept: list[Sample] = []
    try:
        given = format.samples(row)
    except Unreadable as reason:
        report.drop(str(reason), source.where(place))
        return kept
    for sample in given:
        try:
            changes = tidy(sample, source.system)
        except Unreadable as reason:
            report.drop(str(reason), source.where(place))
            continue
        kept.append(sample)
        for change in changes:
            report.change(change, source.where(place))
    return kept


def keys_of(row: Any) -> str:
    """A row in a few words, for people."""
    if isinstance(row, dict):
        return f"a row of keys {', '.join(map(str, row))}"
    return f"a row that is {type(row).__name__}"

"""Rows of tables: csv, tsv and Parquet, read a piece at a time."""

import csv
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow
import pyarrow.parquet

from danlu.data.files.damage import Answer, Damage
from danlu.data.files.unpack import lines
from danlu.data.files.url import File, opened

LONGEST_CELL = 1 << 28
"""characters; a quote that is never closed would take the rest of the file for one cell"""
BATCH_ROWS = 1000


def csv_rows(file: File, start: int, answer: Answer) -> Iterator[tuple[int, Any]]:
    """A table with a header; .tsv is parted by tabs."""
    csv.field_size_limit(LONGEST_CELL)
    text = (line + "\n" for _, line in lines(file))
    table = csv.reader(text, delimiter="\t" if ".tsv" in file.suffixes else ",")
    number = 0
    try:
        columns = next(table, [])
        for number, cells in enumerate(filter(None, table), 1):
            if number > start:
                fits = len(cells) == len(columns)
                row = dict(zip(columns, cells, strict=True)) if fits else None
                yield number, row or answer(unfit(file, table, columns, cells))
    except csv.Error as error:
        raise Damage(
            f"{file}:{table.line_num}: not a table after row {number} ({error}); is a quote never closed?",
            "the rest of a damaged table",
        ) from error


def unfit(file: File, table: Any, columns: list[str], cells: list[str]) -> Damage:
    """A row that the header does not describe."""
    wrong = "more" if len(cells) > len(columns) else "fewer"
    told = ", ".join(columns)
    return Damage(
        f"{file}:{table.line_num}: {wrong} values than columns ({told}); quote values with commas",
        f"{wrong} values than columns",
    )


def parquet_rows(file: File, start: int, answer: Answer) -> Iterator[tuple[int, Any]]:
    """Records of a Parquet file. Whole row groups before `start` are not read."""
    with opened(file) as stream:
        try:
            table = pyarrow.parquet.ParquetFile(stream)
            group, number = 0, 0
            while group < table.num_row_groups and (rows := table.metadata.row_group(group).num_rows) <= start - number:
                group, number = group + 1, number + rows
            batches = table.iter_batches(BATCH_ROWS, row_groups=range(group, table.num_row_groups))
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate(islice(rows, start - number, None), start + 1)
        except (pyarrow.ArrowException, OSError) as error:
            reason = "the rest of a damaged Parquet file"
            raise Damage(f"{file}: not a readable Parquet file ({error})", reason) from error


def num_records(file: File) -> int:
    """How many records a Parquet file holds, by its footer."""
    with opened(file) as stream:
        try:
            return pyarrow.parquet.ParquetFile(stream).metadata.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise Damage(
                f"{file}: not a readable Parquet file ({error})", "the rest of a damaged Parquet file"
            ) from error

"""Rows out of files: each with the number of its line, item or record, counted from 1."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from danlu.core.errors import DataError
from danlu.data.files.find import kind_of
from danlu.data.files.unpack import blocks, lines


def read_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Stream a file's rows with their numbers."""
    readers = {"json": json_rows, "lines": line_rows, "text": text_rows, "csv": csv_rows, "parquet": parquet_rows}
    return readers[kind_of(file)](file)


def text_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Each line is a row {text}."""
    for number, line in lines(file):
        yield number, {"text": line}


def line_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """One JSON value a line; empty lines are no rows."""
    for number, line in lines(file):
        if line and not line.isspace():
            yield number, parse(line, f"{file}:{number}")


def parse(text: str, place: str) -> Any:
    """A JSON value, or an error that shows where it breaks."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        column = getattr(error, "colno", 1)
        near = text[max(0, column - 21) : column + 20]
        raise DataError(f"{place}: not JSON ({error}), near {near!r}; mend or remove this line") from error


def json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """A JSON list, or one object a line: many .json files are really .jsonl."""
    start = next((block for block in blocks(file) if block.strip()), b"").lstrip()[:1]
    if start != b"[":
        yield from line_rows(file)
        return
    text = "\n".join(line for _, line in lines(file))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # lines that are lists themselves
            yield from line_rows(file)
            return
        raise DataError(
            f"{file}:{error.lineno}: not JSON at column {error.colno} ({error.msg}); mend the list there"
        ) from error
    yield from enumerate(rows, 1)


def csv_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """A table with a header; .tsv is parted by tabs."""
    text = "\n".join(line for _, line in lines(file))
    csv.field_size_limit(1 << 30)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in file.suffixes else ",")
    for number, row in enumerate(table, 1):
        if None in row or None in row.values():
            wrong = "more" if None in row else "fewer"
            columns = ", ".join(table.fieldnames or [])
            raise DataError(
                f"{file}:{table.line_num}: {wrong} values than columns ({columns}); quote values with commas"
            )
        yield number, row


def parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Records of a Parquet file."""
    try:
        batches = pyarrow.parquet.ParquetFile(file).iter_batches(1000)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error

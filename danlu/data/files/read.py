"""Rows out of files: each with the number of its line, item or record, counted from 1."""

from collections.abc import Iterator, Sequence
from typing import Any

from danlu.data.files.arrow import arrow_rows
from danlu.data.files.damage import ANSWERS, Answer, Damage, Damaged, OnDamage
from danlu.data.files.find import kind_of
from danlu.data.files.json_text import is_list, line_rows, list_rows, rows_of_bytes
from danlu.data.files.manifest import Shard, sha256_of, shard_of
from danlu.data.files.tables import csv_rows, num_records, parquet_rows
from danlu.data.files.text import Unit, text_rows
from danlu.data.files.url import File


def read_rows(
    file: File, start: int = 0, *, unit: Unit = "line", on_damage: OnDamage = "stop"
) -> Iterator[tuple[int, Any]]:
    """Stream a file's rows after the first `start`, with their numbers. Memory does not grow with the file.

    What cannot be read raises `Damage`, or with `on_damage="skip"` comes as a `Damaged` in place of what is lost.
    """
    answer, number = ANSWERS[on_damage], start
    shard = shard_of(file)
    try:
        if shard is not None:
            check(file, shard)
            if shard.rows <= start:
                return
        for number, row in reader(file, start, answer, unit):
            yield number, row
    except Damage as damage:
        damage.rows = 1 if shard is None else max(1, shard.rows - number)
        yield number + 1, answer(damage)


def reader(file: File, start: int, answer: Answer, unit: Unit) -> Iterator[tuple[int, Any]]:
    """The rows of a file by its kind."""
    kind = kind_of(file)
    if kind == "text":
        return text_rows(file, start, answer, unit)
    if kind == "json":
        kind = "list" if is_list(file) else "lines"
    readers = {"list": list_rows, "lines": line_rows, "csv": csv_rows, "parquet": parquet_rows, "arrow": arrow_rows}
    return readers[kind](file, start, answer)


def read_files(
    files: Sequence[File], start: int = 0, *, unit: Unit = "line", on_damage: OnDamage = "stop"
) -> Iterator[tuple[int, int, Any]]:
    """(file, number, row) of all rows of some files after the first `start`, where a `Damaged` counts as its `rows`.

    Files before that are passed over unopened where a manifest says how many rows they hold.
    """
    for at, file in enumerate(files):
        rows = num_rows(file, unit, on_damage) if start else 0
        if rows <= start and start:
            start -= rows
            continue
        for number, row in read_rows(file, start, unit=unit, on_damage=on_damage):
            yield at, number, row
        start = 0


def num_rows(file: File, unit: Unit = "line", on_damage: OnDamage = "stop") -> int:
    """How many rows a file holds: told by its manifest or its own header, or counted."""
    shard = shard_of(file)
    if shard is not None:
        return shard.rows
    try:
        if kind_of(file) == "parquet":
            return num_records(file)
        if kind_of(file) == "lines":
            return sum(1 for _ in rows_of_bytes(file))
    except Damage as damage:
        ANSWERS[on_damage](damage)
    return sum(
        row.rows if isinstance(row, Damaged) else 1 for _, row in read_rows(file, unit=unit, on_damage=on_damage)
    )


def check(file: File, shard: Shard) -> None:
    """No row of a shard is given before all of its bytes are known to be those that were written."""
    found = sha256_of(file)
    if found != shard.sha256:
        raise Damage(
            f"{file}: its SHA-256 is {found[:12]}…, and its manifest says {shard.sha256[:12]}…: damaged or changed; "
            "fetch or pack it again, or set on_damage: skip to go on without it",
            "a shard that is not what its manifest says",
        )

"""What happens to rows that are too long. Nothing is cut without being counted."""

from typing import Literal

import numpy as np

from danlu.tokens.encode import Encoded

TooLong = Literal["error", "truncate_left", "truncate_right", "drop", "split"]


def fit(row: Encoded, max_length: int, too_long: TooLong) -> list[Encoded]:
    """A row as rows of at most `max_length` ids; none where it is dropped."""
    if len(row.ids) <= max_length:
        return [row]
    count = len(row.ids)
    ranges = {
        "truncate_right": [(0, max_length)],
        "truncate_left": [(count - max_length, count)],
        "drop": [],
        "split": [(start, min(start + max_length, count)) for start in range(0, count, max_length)],
    }[too_long]
    return [part(row, start, end) for start, end in ranges]


def part(row: Encoded, start: int, end: int) -> Encoded:
    """Some of a row's ids; the first one has nothing before it now, so it is not trained."""
    trained = row.trained[start:end].copy()
    trained[:1] = False
    return Encoded(row.ids[start:end], trained, cut=True)


def num_trained(row: Encoded) -> int:
    """How many ids are trained."""
    return int(np.count_nonzero(row.trained))

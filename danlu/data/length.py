"""What happens to rows that are too long. Nothing is cut without being counted."""

from typing import Literal

import numpy as np

from danlu.tokens.encode import Encoded

TooLong = Literal["error", "truncate_left", "truncate_right", "drop", "split", "sample"]

HEADS = 0.25
"""of the rows that are sampled, how many give their beginning; the others give a window from anywhere"""


def fit(
    row: Encoded, max_length: int, too_long: TooLong, *, luck: float = 0.0, eos: int | None = None
) -> list[Encoded]:
    """A row as rows of at most `max_length` ids; none where it is dropped. `luck` (0-1) chooses a sample's place."""
    count = len(row.ids)
    if count <= max_length:
        return [row]
    if too_long == "sample":
        return [window(row, start_of(luck, count - max_length), max_length, eos)]
    ranges = {
        "truncate_right": [(0, max_length)],
        "truncate_left": [(count - max_length, count)],
        "drop": [],
        "split": [(start, min(start + max_length, count)) for start in range(0, count, max_length)],
    }[too_long]
    return [part(row, start, end) for start, end in ranges]


def alike(rows: list[Encoded], max_length: int, too_long: TooLong) -> list[Encoded]:
    """Answers to one prompt, each of at most `max_length` ids; what goes from the left goes from all of them."""
    excess = max(0, *(len(row.ids) - max_length for row in rows)) if too_long == "truncate_left" else 0
    return [part(row, excess, min(len(row.ids), excess + max_length)) for row in rows]


def start_of(luck: float, last: int) -> int:
    """Where a sample begins, at most at `last`."""
    return 0 if luck < HEADS else int((luck - HEADS) / (1 - HEADS) * (last + 1))


def window(row: Encoded, start: int, length: int, eos: int | None) -> Encoded:
    """Some ids of a row, the last of them eos, so that a model does not learn to stop nowhere."""
    piece = part(row, start, start + length)
    if eos is not None:
        piece.ids[-1] = eos
    return piece


def part(row: Encoded, start: int, end: int) -> Encoded:
    """Some of a row's ids; the first one has nothing before it now, so it is not trained."""
    trained = row.trained[start:end].copy()
    trained[:1] = False
    return Encoded(row.ids[start:end].copy(), trained, cut=True)


def num_trained(row: Encoded) -> int:
    """How many ids are trained."""
    return int(np.count_nonzero(row.trained))

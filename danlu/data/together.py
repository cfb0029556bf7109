"""Rows joined and cut to one length, so that every row is full and its documents see each other."""

from collections.abc import Iterable, Iterator

import numpy as np

from danlu.data.chunks import Chunk, hashes_of
from danlu.data.report import SourceReport


def joined(chunks: Iterable[Chunk], length: int) -> Iterator[Chunk]:
    """The same ids, end to end, in rows of exactly `length`; only the last row of all may be shorter."""
    rest: Chunk | None = None
    for chunk in chunks:
        whole = chunk if rest is None else after(rest, chunk)
        count = len(whole.ids) // length
        yield cut(whole, np.full(count, length), whole.report)
        rest = tail(whole, count * length)
    if rest is not None and len(rest.ids):
        yield cut(rest, np.array([len(rest.ids)]), SourceReport())


def after(rest: Chunk, chunk: Chunk) -> Chunk:
    """Two chunks as one, with the report of the later one: the earlier one's was given already."""
    pairs = ((getattr(rest, name), getattr(chunk, name)) for name in ("ids", "trained", "lengths", "places"))
    ids, trained, lengths, places = (np.concatenate(pair) for pair in pairs)
    return Chunk(ids, trained, lengths, places, chunk.hashes, chunk.report)


def cut(whole: Chunk, lengths: np.ndarray, report: SourceReport) -> Chunk:
    """The first ids of a chunk in rows of these lengths; each row's place is that of the document it begins in."""
    count = int(lengths.sum())
    starts = np.cumsum(lengths) - lengths
    trained = whole.trained[:count].copy()
    report.trained_tokens_lost += int(trained[starts].sum())  # a row's first id has nothing before it
    trained[starts] = False
    ids = whole.ids[:count]
    report.rows_out, report.tokens, report.trained_tokens = len(lengths), count, int(trained.sum())
    report.longest = int(lengths.max(initial=0))
    places = whole.places[document_at(whole, starts)]
    return Chunk(ids, trained, lengths, places, hashes_of(ids, lengths), report)


def tail(whole: Chunk, start: int) -> Chunk:
    """What is left behind `start`: the rest of the document there, and all that follow."""
    at = int(document_at(whole, np.array([start]))[0]) if start < len(whole.ids) else len(whole.lengths)
    lengths = whole.lengths[at:].copy()
    if len(lengths):
        lengths[0] -= start - int(whole.lengths[:at].sum())
    report = SourceReport()
    return Chunk(whole.ids[start:], whole.trained[start:], lengths, whole.places[at:], whole.hashes[:0], report)


def document_at(whole: Chunk, starts: np.ndarray) -> np.ndarray:
    """Which document holds the id at each place."""
    return np.searchsorted(np.cumsum(whole.lengths), starts, side="right")

"""Parts of one source's tokens, made apart (by other machines, say) and put together without tokenising again.

A part covers files `start` to `end` of its source and lies in the cache beside the whole, as parts/START-END, under the
same key: whoever wants the whole finds the parts and joins them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from danlu.data.cache import TokenSet
from danlu.data.chunks import Chunk
from danlu.data.report import SourceReport

FOLDER = "parts"
ROWS_AT_ONCE = 10_000


def share(count: int, rank: int, world_size: int) -> range:
    """Which of `count` files a task takes: neighbours, so that the shares in the order of the ranks are all files."""
    return range(rank * count // world_size, (rank + 1) * count // world_size)


def part_of(place: Path, files: range) -> Path:
    """The folder of a part."""
    return place / FOLDER / f"{files.start:06d}-{files.stop:06d}"


def whole_of(place: Path, count: int) -> list[Path]:
    """Parts that together cover all `count` files, in order; none where some are missing."""
    starts: dict[int, Path] = {}
    for part in sorted((place / FOLDER).glob("[0-9]*-[0-9]*")):
        starts[first_of(part)] = part  # of several with one start the longest
    chain, at = list[Path](), 0
    while at < count and at in starts:
        chain.append(starts[at])
        at = int(chain[-1].name.partition("-")[2])
    return chain if at == count else []


def first_of(part: Path) -> int:
    """The first file of a part."""
    return int(part.name.partition("-")[0])


def chunks_of(parts: Sequence[Path]) -> Iterator[Chunk]:
    """The rows of parts, in order, as they came when they were made."""
    for part in parts:
        tokens = TokenSet(part, "")
        report = tokens.report
        for start in [0, *range(ROWS_AT_ONCE, len(tokens), ROWS_AT_ONCE)]:
            rows = slice(start, min(start + ROWS_AT_ONCE, len(tokens)))
            ids = slice(*tokens.offsets[[rows.start, rows.stop]].tolist())
            chunk = Chunk(
                tokens.ids[ids],
                tokens.trained[ids],
                tokens.lengths[rows],
                tokens.places[rows],
                tokens.hashes[rows],
                report if start == 0 else SourceReport(),
            )
            if len(tokens.judged):
                bounds = tokens.cut_offsets[rows.start : rows.stop + 1]
                chunk.num_cuts, chunk.cuts = np.diff(bounds), tokens.cuts[slice(*bounds[[0, -1]].tolist())]
                chunk.judged = tokens.judged[rows]
            yield chunk

"""One source in one lane: its files in a new order each epoch, its rows in windows that are shuffled."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from danlu.core.errors import DataError
from danlu.data.chunks import Chunk
from danlu.data.files.damage import Damaged
from danlu.data.files.read import read_rows
from danlu.data.packing import Pack, Segment, judged, split
from danlu.data.report import DataReport, SourceReport
from danlu.data.sources import Place, Source
from danlu.data.together import joined

CHUNK_ROWS = 128
LONG = 1000
"""tokens of an average row, above which a window holds fewer rows: memory is what matters"""


@dataclass(frozen=True, slots=True)
class Row:
    """ids[n] and trained[n] of a row, and its answers: (ids, trained, where they came from) of one or of several."""

    ids: np.ndarray
    trained: np.ndarray
    answers: list[tuple[np.ndarray, np.ndarray, Segment]]


def pack_of(rows: Sequence[Row]) -> Pack:
    """One pack of some rows."""
    answers = [answer for row in rows for answer in row.answers]
    return Pack.of([answer[:2] for answer in answers], [answer[2] for answer in answers])


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a track: so many epochs, files of this one, and rows of the next file lie behind."""

    epoch: int = 0
    file: int = 0
    row: int = 0


@dataclass(slots=True)
class Job:
    """Some rows for a worker, and the place behind them."""

    track: int
    rows: list[tuple[Place, Any]]
    end: Mark


@dataclass(slots=True)
class Done:
    """What a worker made of a job."""

    track: int
    chunk: Chunk
    num_rows: int
    end: Mark


@dataclass(frozen=True)
class Part:
    """Which rows of a source a lane has: some files, or where there are too few, every so many-th row of all."""

    source: Source
    name: str
    files: Sequence[int]
    every: int = 1
    first: int = 0
    held_out: Sequence[int] = ()
    """rows at the beginning of each file that are kept for evaluation"""


class Track:
    """Reads jobs of rows, and gives their tokens window by window. `number` tells it from all others of a stream."""

    def __init__(
        self,
        part: Part,
        number: int,
        seed: int,
        *,
        shuffle: bool,
        window: int,
        last_epoch: float = math.inf,
        report: SourceReport | None = None,
    ) -> None:
        self.part, self.number, self.seed, self.shuffle = part, number, seed, shuffle
        self.window, self.chunk, self.last_epoch = window, min(window, CHUNK_ROWS), last_epoch
        self.report = report or SourceReport()
        self.restore([0, 0, 0, 0, 0])

    def restore(self, state: Sequence[int]) -> None:
        """Stand where it stood: at the beginning of a window, some of whose rows are given."""
        self.start, self.at, self.given = Mark(*state[:3]), state[3], state[4]
        self.jobs = self._jobs(self.start)
        self.ahead: float = 0
        self.ready: deque[Done] = deque()
        self.rows: list[Row] | None = None

    def state(self) -> list[int]:
        """Where it stands, as JSON."""
        return [self.start.epoch, self.start.file, self.start.row, self.at, self.given]

    @property
    def epochs(self) -> float:
        """How often its files were read."""
        return self.start.epoch + self.start.file / len(self.part.files)

    def permuted(self, count: int, epoch: int, kind: int) -> np.ndarray:
        """[count] numbers in the order that the seed, the epoch and the kind of thing decide."""
        if not self.shuffle:
            return np.arange(count)
        philox = np.random.Philox(key=[self.seed % 2**64, epoch], counter=[0, kind, 1, self.number])
        return np.random.Generator(philox).permutation(count)

    def _jobs(self, mark: Mark) -> Iterator[Job]:
        while mark.epoch < self.last_epoch:
            yield from self._epoch(mark)
            mark = Mark(mark.epoch + 1)

    def _epoch(self, start: Mark) -> Iterator[Job]:
        """One epoch's jobs; none reaches into the next epoch, so that no row comes twice before all came once."""
        rows: list[tuple[Place, Any]] = []
        mark = start
        for place, row, after in self._rows(start):
            if len(rows) == self.chunk:
                yield Job(self.number, rows, mark)
                rows = []
            rows.append((place, row))
            mark = after
        if not rows:
            raise DataError(f"{self.part.name}: no rows are left to train on in lane {self.part.first}")
        yield Job(self.number, rows, Mark(start.epoch + 1))

    def _rows(self, start: Mark) -> Iterator[tuple[Place, Any, Mark]]:
        part, skip = self.part, start.row
        order = self.permuted(len(part.files), start.epoch, 0)
        for at in range(start.file, len(order)):
            file = part.files[order[at]]
            row = max(skip, part.held_out[file] if part.held_out else 0)
            source, skip = part.source, 0
            found = read_rows(source.files[file], row, unit=source.unit, on_damage=source.on_damage)
            for number, content in found:
                mine = row % part.every == part.first
                row += content.rows if isinstance(content, Damaged) else 1
                if mine:
                    yield (file, number), content, Mark(start.epoch, at, row)

    def peek(self) -> Row | None:
        """The next row, if its window is there."""
        return self.rows[self.given] if self.rows is not None else None

    def advance(self) -> None:
        """Count the next row as given."""
        assert self.rows is not None
        self.given += 1
        if self.given == len(self.rows):
            self.start, self.at, self.given, self.rows = self.end, self.at + 1, 0, None

    @property
    def ended(self) -> bool:
        """Whether every epoch that it may give is given."""
        return self.start.epoch >= self.last_epoch

    def fill(self, together: int | None) -> bool:
        """Make the next window of what is ready; False where that is not enough yet."""
        rows = tokens = 0
        for count, one in enumerate(self.ready, 1):
            rows += one.num_rows
            tokens += len(one.chunk.ids)
            whole = rows >= self.window or tokens >= self.window * LONG or one.end.epoch > self.start.epoch
            if whole:
                self._open([self.ready.popleft() for _ in range(count)], together)
                return True
        return False

    def _open(self, taken: list[Done], together: int | None) -> None:
        for one in taken:
            self.ahead -= one.num_rows
            self.report.add(one.chunk.report)
        chunks = [one.chunk for one in taken]
        end = taken[-1].end
        rows = [row for chunk in (joined(chunks, together) if together else chunks) for row in self._rows_of(chunk)]
        if not rows:
            self._nothing(end)
            return
        self.rows = [rows[n] for n in self.permuted(len(rows), self.start.epoch, 1 + self.at)]
        self.end = end

    def _nothing(self, end: Mark) -> None:
        """A window all of whose rows were dropped is passed over, but an epoch of them is an error."""
        if end.epoch > self.start.epoch and not self.report.rows_out:
            why = DataReport({self.part.name: self.report}).lines()
            raise DataError("\n".join([f"{self.part.name}: no row is left to train on", *why]))
        self.start, self.at = end, self.at + 1

    def _rows_of(self, chunk: Chunk) -> Iterator[Row]:
        source, ends = self.part.source, np.cumsum(chunk.lengths)
        cuts = np.split(chunk.cuts, np.cumsum(chunk.num_cuts)[:-1])
        spans = zip(chunk.places.tolist(), ends - chunk.lengths, ends, strict=True)
        for number, ((file, row, _), start, end) in enumerate(spans):
            segment = Segment(self.part.name, str(source.files[file]), row)
            ids, trained = chunk.ids[start:end], chunk.trained[start:end]
            answers = [(ids, trained, segment)]
            if len(chunk.judged):
                facts = judged(float(chunk.judged[number]), len(cuts[number]))
                answers = split(ids, trained, segment, cuts[number].tolist(), facts)
            yield Row(ids, trained, answers)


def parts(source: Source, name: str, lanes: int, held_out: Sequence[int]) -> list[Part]:
    """A source dealt out to lanes."""
    files = range(len(source.files))
    whole = Part(source, name, files, held_out=held_out)
    if len(files) < lanes:
        return [replace(whole, every=lanes, first=lane) for lane in range(lanes)]
    return [replace(whole, files=files[lane::lanes]) for lane in range(lanes)]

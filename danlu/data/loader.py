"""Steps of packs in one global order: the same for any number of workers, ranks or restarts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import takewhile
from math import ceil
from typing import Any

import numpy as np

from danlu.core.errors import DataError
from danlu.data.batch import Batch
from danlu.data.course import Blended, Course, OneOrder
from danlu.data.mixtures.base import Mixture
from danlu.data.packing import Pack, best_fit
from danlu.data.pool import Pool
from danlu.data.rows import Rows
from danlu.data.tally import Tally

LOOK_AHEAD = 2048
"""rows that wait in the pool: at 2048 tokens a pack of Alpaca rows is more than 99 % full"""
COUNTED = 200_000
"""rows whose packs are counted before a run, which takes a second or two; longer runs are reckoned from so many"""
SPARE = 1.001
"""steps planned beyond what was reckoned, so that no row is left out; the run ends with its rows"""


@dataclass(slots=True)
class Step:
    """What one optimiser step trains on. `cursor` (JSON) is where the order stands *after* this step."""

    packs: list[Pack]
    epoch: float
    cursor: dict[str, Any]
    facts: dict[str, float] = field(default_factory=dict)
    """each source's share of the tokens so far and its epochs, where there are several"""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """what was written for this step, for people to read"""
    seconds: float = 0.0
    """what it took to make ready"""
    waited: dict[str, float] = field(default_factory=dict)
    """what of that went where, and how fast it was"""


@dataclass(slots=True)
class Plan:
    """One step before its tokens are read: packs of row numbers, and where the order stands after it."""

    packs: list[list[int]]
    course: dict[str, Any]
    position: int
    pool: list[int]

    @property
    def num_rows(self) -> int:
        """Rows learnt from until after this step."""
        return self.position - len(self.pool)


class Loader:
    """The stream of steps; `restore` continues it from any step's cursor."""

    def __init__(
        self,
        rows: Rows,
        batch: Batch,
        *,
        pack_tokens: int = 2048,
        seed: int = 0,
        shuffle: bool = True,
        epochs: float | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        if not len(rows):
            raise DataError("no rows are left to train on")
        self.rows, self.batch, self.pack_tokens = rows, batch, pack_tokens
        self._course = partial(course_of, rows, mixture, seed, shuffle)
        self.epochs, self.course = epochs, self._course(epochs)
        self._cursor = self._cursor_of(Plan([], self.course.state(), 0, []), Tally())

    def __iter__(self) -> Iterator[Step]:
        self.course.restore(self._cursor["course"])
        tally = Tally.of(self._cursor["given"])
        for plan in self.plans(self.course, self._cursor["pool"]):
            packs = [self.rows.pack(pack) for pack in plan.packs]
            tally.add(packs)
            self._cursor = self._cursor_of(plan, tally)
            yield Step(packs, plan.num_rows / len(self.rows), self._cursor, tally.facts(tally.epochs(self.num_held)))

    def restore(self, cursor: dict[str, Any]) -> None:
        """Go on after the step that had this cursor; nothing before it is read again."""
        if cursor["rows"] != len(self.rows):
            raise DataError(
                f"the data has changed: {len(self.rows):,} rows now, {cursor['rows']:,} when the run was saved; "
                "restore the files, or start a new run from its weights"
            )
        self._cursor = cursor

    def joined(self, cursors: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One cursor from those of all ranks, which are the same here."""
        return cursors[0]

    def realised(self, cursor: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
        """What each source has given until a cursor, its shares and epochs, for the report."""
        return Tally.of(cursor["given"] if cursor else {}).realised(self.num_held)

    def _cursor_of(self, plan: "Plan", tally: Tally) -> dict[str, Any]:
        return {"course": plan.course, "pool": plan.pool, "rows": len(self.rows), "given": tally.state()}

    @property
    def num_held(self) -> dict[str, float]:
        """Rows of each source."""
        return {name: float(rows) for name, rows in zip(self.rows.names, np.diff(self.rows.bounds), strict=True)}

    def plans(self, course: Course, pool: Sequence[int] = ()) -> Iterator[Plan]:
        """Every step of a course, by row numbers only."""
        return self._by_rows(course, self.batch.rows) if self.batch.rows else self._by_tokens(course, pool)

    @cached_property
    def num_steps(self) -> int | None:
        """Steps until the end; none where the order has none."""
        count = self.course.num_rows
        if count is None or self.batch.rows:
            return count and ceil(count / (self.batch.rows or 1))
        plans = self.plans(self._course(self.epochs))
        if count <= COUNTED:
            return self.census(plans).steps
        some = self.census(takewhile(lambda plan: plan.num_rows < COUNTED, plans))
        return ceil(self.course.total(self.rows.lengths) * some.steps / some.tokens * SPARE)

    @cached_property
    def fill(self) -> float:
        """How full the packs are in the first epoch, 0–1."""
        some = self.census(self.plans(self._course(1)))
        return some.tokens / (some.packs * self.pack_tokens)

    def census(self, plans: Iterable[Plan]) -> "Census":
        """Steps, packs, rows and tokens, counted without reading a token."""
        census = Census()
        for plan in plans:
            rows = [row for pack in plan.packs for row in pack]
            census.steps += 1
            census.packs += len(plan.packs)
            census.rows += len(rows)
            census.tokens += int(self.rows.lengths[rows].sum(dtype=np.int64))
        return census

    def _by_rows(self, course: Course, count: int) -> Iterator[Plan]:
        while rows := course.take(count):
            fitted = best_fit(self.rows.lengths[rows].tolist(), self.pack_tokens)
            yield Plan([[rows[n] for n in pack] for pack in fitted], course.state(), course.position, [])

    def _by_tokens(self, course: Course, waiting: Sequence[int]) -> Iterator[Plan]:
        count = max(1, (self.batch.tokens or 1) // self.pack_tokens)
        pool = Pool()
        self._put(pool, waiting)
        while True:
            packs: list[list[int]] = []
            while len(packs) < count:
                self._put(pool, course.take(LOOK_AHEAD - len(pool)))
                if not len(pool):
                    break
                packs.append(pool.pack(self.pack_tokens))
            if packs:
                yield Plan(packs, course.state(), course.position, pool.rows())
            if len(packs) < count:
                return

    def _put(self, pool: Pool, rows: Sequence[int]) -> None:
        for row, length in zip(rows, self.rows.lengths[list(rows)].tolist(), strict=True):
            pool.put(row, length)


@dataclass(slots=True)
class Census:
    """What some steps hold."""

    steps: int = 0
    packs: int = 0
    rows: int = 0
    tokens: int = 0


def course_of(rows: Rows, mixture: Mixture | None, seed: int, shuffle: bool, epochs: float | None) -> Course:
    """One order of all rows, or the sources by their shares."""
    blend = mixture and mixture.blend(rows.held, epochs)
    if blend is None:
        return OneOrder(len(rows), seed, shuffle, epochs)
    return Blended(blend, [rows.amounts(at, blend.by) for at in range(len(rows.sets))], seed, shuffle)

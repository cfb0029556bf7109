"""Steps of packs in one global order: the same for any number of workers, ranks or restarts."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from danlu.core.errors import DataError
from danlu.data.batch import Batch
from danlu.data.cache import TokenSet
from danlu.data.order import Order
from danlu.data.packing import Pack, best_fit
from danlu.data.pool import Pool

LOOK_AHEAD = 2048
"""rows that wait in the pool: at 2048 tokens a pack of Alpaca rows is more than 99 % full"""


@dataclass(slots=True)
class Step:
    """What one optimiser step trains on. `cursor` (JSON) is where the order stands *after* this step."""

    packs: list[Pack]
    epoch: float
    cursor: dict[str, Any]


@dataclass(slots=True)
class Plan:
    """One step before its tokens are read: packs of row numbers, and where the order stands after it."""

    packs: list[list[int]]
    position: int
    pool: list[int]


class Rows:
    """Rows of several token sets under one numbering. R: rows."""

    def __init__(self, sets: Sequence[TokenSet], rows: Sequence[np.ndarray] | None = None) -> None:
        self.sets = list(sets)
        chosen = [np.arange(len(one)) for one in sets] if rows is None else rows
        self.source = np.concatenate([np.full(len(some), at) for at, some in enumerate(chosen)])
        self.number = np.concatenate(chosen).astype(np.int64)
        self.lengths = np.concatenate([one.lengths[some] for one, some in zip(sets, chosen, strict=True)]).astype(int)

    def __len__(self) -> int:
        return len(self.number)

    def pack(self, rows: Sequence[int]) -> Pack:
        """One pack of these rows."""
        places = [(self.sets[self.source[row]], int(self.number[row])) for row in rows]
        return Pack.of([one.row(number) for one, number in places], [one.segment(number) for one, number in places])

    def packs(self, capacity: int) -> list[Pack]:
        """Every row, in as few packs as best fit finds."""
        return [self.pack(rows) for rows in best_fit(self.lengths.tolist(), capacity)]


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
    ) -> None:
        if not len(rows):
            raise DataError("no rows are left to train on")
        self.rows, self.batch, self.pack_tokens = rows, batch, pack_tokens
        self.order = Order(len(rows), seed, shuffle)
        self.end = None if epochs is None else max(1, round(epochs * len(rows)))
        self._position = 0
        self._pool: list[int] = []

    def __iter__(self) -> Iterator[Step]:
        for plan in self.plans():
            cursor = {"position": plan.position, "pool": plan.pool, "rows": len(self.rows)}
            epoch = (plan.position - len(plan.pool)) / len(self.rows)
            self._position, self._pool = plan.position, plan.pool
            yield Step([self.rows.pack(pack) for pack in plan.packs], epoch, cursor)

    def restore(self, cursor: dict[str, Any]) -> None:
        """Go on after the step that had this cursor; nothing before it is read again."""
        if cursor["rows"] != len(self.rows):
            raise DataError(
                f"the data has changed: {len(self.rows):,} rows now, {cursor['rows']:,} when the run was saved; "
                "restore the files, or start a new run from its weights"
            )
        self._position, self._pool = cursor["position"], list(cursor["pool"])

    def plans(self) -> Iterator[Plan]:
        """Every step from here on, by row numbers only."""
        return self._by_rows() if self.batch.rows else self._by_tokens()

    @cached_property
    def num_steps(self) -> int | None:
        """Steps of all epochs, by going through the lengths; none where the order has no end."""
        return None if self.end is None else self._whole().steps

    @cached_property
    def fill(self) -> float:
        """How full the packs are in the first epoch, 0–1."""
        return self._whole().fill

    def _whole(self) -> "Census":
        fresh = copy(self)
        fresh.end = self.end or len(self.rows)
        fresh._position, fresh._pool = 0, []
        return Census.of(fresh)

    def _by_rows(self) -> Iterator[Plan]:
        count, position = self.batch.rows or 1, self._position
        while self.end is None or position < self.end:
            stop = position + count if self.end is None else min(position + count, self.end)
            rows = [self.order.at(at) for at in range(position, stop)]
            fitted = best_fit(self.rows.lengths[rows].tolist(), self.pack_tokens)
            position = stop
            yield Plan([[rows[n] for n in pack] for pack in fitted], position, [])

    def _by_tokens(self) -> Iterator[Plan]:
        count = max(1, (self.batch.tokens or 1) // self.pack_tokens)
        pool, position = Pool(), self._position
        for row in self._pool:
            pool.put(row, int(self.rows.lengths[row]))
        while True:
            packs: list[list[int]] = []
            while len(packs) < count:
                position = self._fill(pool, position)
                if not len(pool):
                    break
                packs.append(pool.pack(self.pack_tokens))
            if packs:
                yield Plan(packs, position, pool.rows())
            if len(packs) < count:
                return

    def _fill(self, pool: Pool, position: int) -> int:
        while len(pool) < LOOK_AHEAD and (self.end is None or position < self.end):
            row = self.order.at(position)
            pool.put(row, int(self.rows.lengths[row]))
            position += 1
        return position


@dataclass(slots=True)
class Census:
    """Steps, packs and tokens of a loader, counted without reading a token."""

    steps: int
    packs: int
    tokens: int
    fill: float

    @classmethod
    def of(cls, loader: Loader) -> "Census":
        """Go through every step's lengths."""
        steps = packs = tokens = 0
        for plan in loader.plans():
            steps += 1
            packs += len(plan.packs)
            tokens += sum(int(loader.rows.lengths[pack].sum()) for pack in plan.packs)
        return cls(steps, packs, tokens, tokens / (packs * loader.pack_tokens))

"""Steps from a stream: pack j of step s is the next of lane (s * packs + j) mod lanes, however many ranks train."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from danlu.core.errors import DataError
from danlu.data.batch import Batch
from danlu.data.loader import Step
from danlu.data.packing import Pack, best_fit
from danlu.data.stream.feed import Feed, Worker
from danlu.data.stream.lane import Lane
from danlu.data.stream.track import pack_of
from danlu.data.tally import Tally

Cursor = dict[str, Any]


class Stream:
    """The same contract as a `Loader`, over rows that nobody has counted. `key`: what decides the order."""

    num_steps = None

    def __init__(
        self,
        lanes: Sequence[Lane],
        batch: Batch,
        works: dict[str, Worker],
        *,
        key: str,
        workers: int,
        prefetch: int,
        together: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.lanes, self.batch, self.works, self.key = list(lanes), batch, works, key
        self.workers, self.prefetch, self.together = workers, prefetch, together
        self.rank, self.ranks = rank, ranks
        self.num_packs = max(1, (batch.tokens or 0) // lanes[0].pack_tokens)
        self.mine = self._mine()
        self._cursor: Cursor | None = None

    def _mine(self) -> list[int]:
        """The lanes that this rank's packs come from; all of them where the ranks do not divide them."""
        if self.batch.rows:
            return list(range(len(self.lanes)))
        steps = range(len(self.lanes))
        turns = itertools.product(steps, range(self.rank, self.num_packs, self.ranks))
        return sorted({(step * self.num_packs + at) % len(self.lanes) for step, at in turns})

    def __iter__(self) -> Iterator[Step]:
        states = self._stand()
        tracks = [track for lane in self.mine for track in self.lanes[lane].tracks]
        feed = Feed(tracks, self.works, self.workers, prefetch=self.prefetch, together=self.together)
        try:
            yield from self._by_rows(feed, states) if self.batch.rows else self._by_tokens(feed, states)
        finally:
            feed.close()

    def _stand(self) -> list[Any]:
        """Stand where the cursor says; returns each lane's state, none for those of other ranks."""
        cursor = self._cursor or {"lanes": [None] * len(self.lanes)}
        states = []
        for number, (lane, state) in enumerate(zip(self.lanes, cursor["lanes"], strict=True)):
            if state is not None:
                lane.restore(state)
            states.append(lane.state() if state is None and number in self.mine else state)
        return states

    def restore(self, cursor: Cursor) -> None:
        """Go on after the step that had this cursor; nothing but the newest windows is read again."""
        if cursor.get("stream") != self.key:
            raise DataError(
                "the data has changed since the run was saved (its files, their sizes, or how they are read); "
                "restore the files, or start a new run from its weights"
            )
        missing = [lane for lane in self.mine if cursor["lanes"][lane] is None]
        if missing and cursor["step"]:
            raise DataError(f"this checkpoint does not say where lanes {missing} stand: one rank of many saved it")
        self._cursor = cursor

    def joined(self, cursors: Sequence[Cursor]) -> Cursor:
        """One cursor from those of all ranks, each of which knows where its own lanes stand."""
        by_lane = zip(*(cursor["lanes"] for cursor in cursors), strict=True)
        lanes = [next((one for one in states if one is not None), None) for states in by_lane]
        return cursors[0] | {"lanes": lanes}

    def _by_tokens(self, feed: Feed, states: list[Any]) -> Iterator[Step]:
        lanes = {number: self.lanes[number].packs(feed) for number in self.mine}
        for step in itertools.count(self._cursor["step"] if self._cursor else 0):
            packs: list[Pack] = []
            for at in range(self.num_packs):
                lane = (step * self.num_packs + at) % len(self.lanes)
                found = next(lanes[lane], None) if lane in lanes else ELSEWHERE
                if found is None:
                    break
                packs.append(found[0])
                states[lane] = found[1]
            if packs:
                yield self._step(packs, states, step + 1)
            if len(packs) < self.num_packs:
                return

    def _by_rows(self, feed: Feed, states: list[Any]) -> Iterator[Step]:
        count = self.batch.rows or 1
        lanes = [lane.rows(feed) for lane in self.lanes]
        for step in itertools.count(self._cursor["step"] if self._cursor else 0):
            turns = ((step * count + at) % len(lanes) for at in range(count))
            rows = [(lane, row) for lane in turns if (row := next(lanes[lane], None)) is not None]
            fitted = best_fit([len(row.ids) for _, row in rows], self.lanes[0].pack_tokens)
            packs = [pack_of([rows[n][1] for n in numbers]) for numbers in fitted]
            if not packs:
                return
            self.lanes[0].tally.add(packs)
            yield self._step(packs, [lane.state() for lane in self.lanes], step + 1)

    def _step(self, packs: list[Pack], states: list[Any], step: int) -> Step:
        cursor = {"stream": self.key, "step": step, "lanes": list(states)}
        self._cursor = cursor
        epochs = self.epochs
        return Step(packs, sum(epochs.values()) / len(epochs), cursor, self._tally(cursor).facts(epochs))

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source's files were read, by this rank."""
        lanes = [self.lanes[number] for number in self.mine]
        tracks = zip(*(lane.tracks for lane in lanes), strict=True)
        return {some[0].part.name: sum(track.epochs for track in some) / len(some) for some in tracks}

    def _tally(self, cursor: Cursor | None) -> Tally:
        total = Tally()
        for state in cursor["lanes"] if cursor else []:
            total.merge(Tally.of(state["tally"] if state else {}))
        return total

    def realised(self, cursor: Cursor | None) -> dict[str, dict[str, Any]]:
        """What each source has given until a cursor, its shares and epochs, for the report."""
        found = self._tally(cursor).realised({})
        return {name: one | {"epochs": round(self.epochs[name], 4)} for name, one in found.items()}


ELSEWHERE: tuple[Any, Any] = (None, None)
"""a pack that another rank reads"""

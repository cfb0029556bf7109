"""One lane of a stream: the mixture of its tracks, and packs of it. Where it stands is a few numbers for each track."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from danlu.data.mixture import Chooser, Unit
from danlu.data.packing import Pack, best_fit
from danlu.data.stream.feed import Feed
from danlu.data.stream.track import Row, Track, pack_of
from danlu.data.tally import Tally

GROUP_PACKS = 64
"""packs that are filled together: more are fuller, fewer are made again sooner after a restart"""
MOST_ROOM = 0.02
"""of a group's last pack, above which rows are waited for that fill it"""
State = dict[str, Any]


class Lane:
    """Rows of some tracks by their shares. `sizes`: what a row counts, where that is the same for all of a source."""

    def __init__(
        self, tracks: Sequence[Track], weights: Sequence[float], by: Unit, sizes: Sequence[float], pack_tokens: int
    ) -> None:
        self.tracks, self.by, self.sizes, self.pack_tokens = list(tracks), by, list(sizes), pack_tokens
        self.chooser, self.tally = Chooser(weights), Tally()
        self.group, self.packs_given = 0, 0

    def restore(self, state: State) -> None:
        """Stand where it stood."""
        for track, where in zip(self.tracks, state["tracks"], strict=True):
            track.restore(where)
        self.chooser.given = list(state["given"])
        self.tally = Tally.of(state["tally"])
        self.group, self.packs_given = state["group"], state["packs"]

    def state(self) -> State:
        """Where its tracks stand, as JSON."""
        tracks, given = [track.state() for track in self.tracks], list(self.chooser.given)
        return {"tracks": tracks, "given": given, "group": self.group, "packs": 0, "tally": self.tally.state()}

    def rows(self, feed: Feed) -> Iterator[Row]:
        """Every row in turn, without end unless all tracks have one."""
        waiting = [feed.peek(track) for track in self.tracks]
        while any(row is not None for row in waiting):
            at = self.chooser.choose([None if row is None else self._size(n, row) for n, row in enumerate(waiting)])
            row = waiting[at]
            assert row is not None
            self.chooser.give(at, self._size(at, row))
            self.tracks[at].advance()
            yield row
            waiting[at] = feed.peek(self.tracks[at])

    def _size(self, at: int, row: Row) -> float:
        if self.by == "tokens":
            return float(len(row.ids))
        return float(np.count_nonzero(row.trained)) if self.by == "trained_tokens" else self.sizes[at]

    def packs(self, feed: Feed) -> Iterator[tuple[Pack, State]]:
        """Packs, each with where the lane stands after it: at the beginning of their group, and how many are given."""
        skip = self.packs_given
        rows = self.rows(feed)
        while True:
            start = self.state()
            group = self._group(rows)
            if not group:
                return
            fitted = best_fit([len(row.ids) for row in group], self.pack_tokens)
            for at, number in enumerate(self._shuffled(len(fitted))):
                if at < skip:
                    continue
                pack = pack_of([group[n] for n in fitted[number]])
                self.tally.add([pack])
                yield pack, start | {"packs": at + 1, "tally": self.tally.state()}
            self.group, skip = self.group + 1, 0

    def _group(self, rows: Iterator[Row]) -> list[Row]:
        group: list[Row] = []
        tokens, epoch, most = 0, self.tracks[0].start.epoch, sum(track.window for track in self.tracks) // 4
        while not self._enough(len(group), tokens, most) and (row := next(rows, None)) is not None:
            group.append(row)
            tokens += len(row.ids)
            if len(self.tracks) == 1 and self.tracks[0].start.epoch > epoch:
                break  # a pack of the next epoch could come before this one's last
        return group

    def _enough(self, rows: int, tokens: int, most: int) -> bool:
        """Whether rows make a group: many packs, or a part of a window where they leave little room."""
        last = -tokens % self.pack_tokens
        return tokens >= GROUP_PACKS * self.pack_tokens or (rows >= most and last <= self.pack_tokens * MOST_ROOM)

    def _shuffled(self, count: int) -> np.ndarray:
        # best fit gives the packs of long rows first
        return self.tracks[0].permuted(count, self.group, 1 << 40)

"""Full packs from a stream of rows: a pool of waiting rows, the oldest first, then whatever fits best."""

from bisect import bisect_right, insort
from collections import deque
from operator import itemgetter


class Pool:
    """Rows that wait for a pack."""

    def __init__(self) -> None:
        self.by_age: deque[tuple[int, int, int]] = deque()  # (age, row, length), some of them gone already
        self.by_length: list[tuple[int, int, int]] = []  # (length, -age, row), sorted
        self.next_age = 0

    def __len__(self) -> int:
        return len(self.by_length)

    def put(self, row: int, length: int) -> None:
        """A row comes to wait."""
        self.by_age.append((self.next_age, row, length))
        insort(self.by_length, (length, -self.next_age, row))
        self.next_age += 1

    def rows(self) -> list[int]:
        """Who waits, the oldest first."""
        return [row for _, _, row in sorted(self.by_length, key=itemgetter(1), reverse=True)]

    def pack(self, capacity: int) -> list[int]:
        """The next pack: the oldest row, so that none waits for ever, then the longest that still fit."""
        oldest = self.by_length.pop(self._oldest())
        pack, room = [oldest[2]], capacity - oldest[0]
        while room > 0 and (fitting := bisect_right(self.by_length, (room, 1, 0))):
            length, _, row = self.by_length.pop(fitting - 1)
            pack.append(row)
            room -= length
        return pack

    def _oldest(self) -> int:
        """Where the one who waits longest is."""
        while True:
            age, row, length = self.by_age.popleft()
            at = bisect_right(self.by_length, (length, -age, row))
            if at and self.by_length[at - 1] == (length, -age, row):
                return at - 1

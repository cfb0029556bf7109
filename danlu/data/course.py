"""The order of a whole run: which row comes next, from one order of all or from several by their shares."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from danlu.data.mixture import Blend, Chooser, whole
from danlu.data.order import Order

STATE = dict[str, Any]


class Course(Protocol):
    """An order that knows where it stands. `num_rows`: rows until its end, None where it has none."""

    num_rows: int | None

    @property
    def position(self) -> int:
        """Rows given so far."""
        ...

    def take(self, count: int) -> list[int]:
        """The next rows; fewer where the end is near."""
        ...

    def total(self, lengths: np.ndarray) -> float:
        """About how much all rows until the end come to. `lengths`: of every row."""
        ...

    def state(self) -> STATE:
        """Where it stands, as JSON."""
        ...

    def restore(self, state: STATE) -> None:
        """Stand where it stood."""
        ...


class OneOrder:
    """Every row once an epoch."""

    def __init__(self, num_rows: int, seed: int, shuffle: bool, epochs: float | None) -> None:
        self.order = Order(num_rows, seed, shuffle)
        self.num_rows = None if epochs is None else max(1, round(epochs * num_rows))
        self._position = 0

    @property
    def position(self) -> int:
        """Rows given so far."""
        return self._position

    def take(self, count: int) -> list[int]:
        """The next rows; fewer where the end is near."""
        count = count if self.num_rows is None else min(count, self.num_rows - self._position)
        rows = self.order.slice(self._position, count)
        self._position += len(rows)
        return rows.tolist()

    def total(self, lengths: np.ndarray) -> float:
        """About how much all rows until the end come to; inf where it has none."""
        return float(lengths.mean()) * (math.inf if self.num_rows is None else self.num_rows)

    def state(self) -> STATE:
        """Where it stands, as JSON."""
        return {"position": self._position}

    def restore(self, state: STATE) -> None:
        """Stand where it stood."""
        self._position = state["position"]


class Member:
    """One source of a blend: its own order, how far it has come, and where it ends."""

    def __init__(self, first: int, sizes: np.ndarray, order: Order) -> None:
        self.first, self.sizes, self.order = first, sizes, order
        self.position, self.end = 0, math.inf
        self.by_epoch = float(sizes.sum(dtype=np.float64))

    def rows_of(self, amount: float) -> float:
        """About how many rows give an amount; inf where it has no end."""
        if math.isinf(amount):
            return amount
        epochs, rest = divmod(amount * (1 + 1e-12), self.by_epoch)
        sums = np.cumsum(self.sizes[self.order.epoch(int(epochs))], dtype=np.float64)
        within = int(np.searchsorted(sums, rest))
        before = sums[within - 1] if within else 0.0
        nearest = within + (within < len(sums) and rest - before > sums[within] - rest)
        return int(epochs) * self.order.num_rows + nearest

    def peek(self) -> tuple[int, float] | None:
        """The next row among all rows, and its amount; none where it has ended."""
        if self.position >= self.end:
            return None
        epoch, place = divmod(self.position, self.order.num_rows)
        row = int(self.order.epoch(epoch)[place])
        return self.first + row, float(self.sizes[row])


class Blended:
    """Sources by their shares, each in an order of its own. `sizes`: one array a source, the amount of each row."""

    def __init__(self, blend: Blend, sizes: Sequence[np.ndarray], seed: int, shuffle: bool) -> None:
        firsts = np.cumsum([0, *(len(some) for some in sizes)])
        self.members = [
            Member(int(firsts[n]), some, Order(len(some), seed, shuffle, stream=n)) for n, some in enumerate(sizes)
        ]
        self.chooser = Chooser(blend.weights)
        for member, end in zip(self.members, self._ends(blend), strict=True):
            member.end = end
        total = sum(member.end for member in self.members)
        self.num_rows = None if math.isinf(total) else int(total)

    def _ends(self, blend: Blend) -> list[float]:
        finite = not any(map(math.isinf, blend.amounts))
        if blend.by == "rows" and finite:
            return [float(rows) for rows in whole(blend.amounts)]
        return [member.rows_of(amount) for member, amount in zip(self.members, blend.amounts, strict=True)]

    @property
    def position(self) -> int:
        """Rows given by all."""
        return sum(member.position for member in self.members)

    def take(self, count: int) -> list[int]:
        """The next rows; fewer where the end is near."""
        rows: list[int] = []
        waiting = [member.peek() for member in self.members]
        while len(rows) < count and any(one is not None for one in waiting):
            source = self.chooser.choose([None if one is None else one[1] for one in waiting])
            spoken = waiting[source]
            assert spoken is not None
            rows.append(spoken[0])
            self.chooser.give(source, spoken[1])
            self.members[source].position += 1
            waiting[source] = self.members[source].peek()
        return rows

    def total(self, lengths: np.ndarray) -> float:
        """About how much all rows until the end come to; inf where it has none."""
        parts = ((one, lengths[one.first : one.first + len(one.sizes)]) for one in self.members)
        return sum(one.end * float(part.mean()) for one, part in parts)

    def state(self) -> STATE:
        """Where it stands, as JSON."""
        return {"positions": [member.position for member in self.members], "given": list(self.chooser.given)}

    def restore(self, state: STATE) -> None:
        """Stand where it stood."""
        for member, position in zip(self.members, state["positions"], strict=True):
            member.position = position
        self.chooser.given = list(state["given"])

"""Which source speaks next: the one whose next row is due first, so that shares hold all the way."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["rows", "tokens", "trained_tokens", "bytes"]


@dataclass(frozen=True, slots=True)
class Held:
    """What a mixture may know of a source: its name, its number of files, and how much it holds in any unit."""

    name: str
    files: int
    amount: Callable[[Unit], float]
    """bytes are those of the files as stored, packed or not; some take time, so none is found that nobody asks for"""


@dataclass(frozen=True, slots=True)
class Blend:
    """A mixture worked out for some sources: their shares, and how much each gives in all (inf: without end)."""

    by: Unit
    weights: tuple[float, ...]
    amounts: tuple[float, ...]

    @classmethod
    def of(cls, by: Unit, weights: Sequence[float], total: float, most: Sequence[float] | None = None) -> "Blend":
        """`total` dealt out by the shares; a source that may give no more leaves its share to the others."""
        shares = tuple(weight / sum(weights) for weight in weights)
        return cls(by, shares, tuple(dealt(shares, total, most or [math.inf] * len(shares))))


def dealt(weights: Sequence[float], total: float, most: Sequence[float]) -> list[float]:
    """`total` in proportion to the weights, none above its limit; less than `total` where every limit is reached."""
    given, free = list(most), set(range(len(weights)))
    while free:
        left = total - sum(given[one] for one in range(len(weights)) if one not in free)
        each = left / sum(weights[one] for one in free)
        full = {one for one in free if weights[one] * each >= most[one]}
        if not full:
            for one in free:
                given[one] = weights[one] * each
            break
        free -= full
    return given


def whole(amounts: Sequence[float]) -> list[int]:
    """Amounts as whole numbers of the same sum: the largest remainders are rounded up."""
    floors = [math.floor(amount + 1e-9) for amount in amounts]
    missing = round(sum(amounts)) - sum(floors)
    by_remainder = sorted(range(len(amounts)), key=lambda one: floors[one] - amounts[one])
    return [floor + (one in by_remainder[:missing]) for one, floor in enumerate(floors)]


class Chooser:
    """Deals turns by shares, of which it remembers only what each source has given.

    A source may speak while it is not ahead of its share with its next row counted in; among those, the one that would
    fall behind first does. With amounts of rows this is earliest-deadline-first on one processor, so that no source is
    ever a whole row away from its share, in any stretch from the start: Liu and Layland 1973,
    https://doi.org/10.1145/321738.321743; Baruah et al. 1996, https://doi.org/10.1007/BF01940883
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = list(weights)
        self.given = [0.0] * len(weights)

    def choose(self, sizes: Sequence[float | None]) -> int:
        """The source that speaks next. `sizes`: the amount of each one's next row, None where it has ended."""
        alive = [one for one, size in enumerate(sizes) if size is not None]
        if len(alive) == 1:
            return alive[0]
        total, share = 0.0, 0.0
        for one in alive:
            total += self.given[one]
            share += self.weights[one]
        first, due, fallback, latest = -1, math.inf, alive[0], math.inf
        for one in alive:
            size, weight = sizes[one] or 0.0, self.weights[one] / share
            deadline = (self.given[one] + size) / weight
            if deadline < latest:
                fallback, latest = one, deadline
            if deadline < due and self.given[one] < weight * (total + size):
                first, due = one, deadline
        return first if first >= 0 else fallback  # all are exactly level: rounding, or rows of no size

    def give(self, source: int, size: float) -> None:
        """Count what a source has given."""
        self.given[source] += size

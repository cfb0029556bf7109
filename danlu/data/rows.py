"""Rows of several token sets under one numbering."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from danlu.data.cache import TokenSet
from danlu.data.files.url import Url, is_url, stored_bytes
from danlu.data.mixture import Held, Unit
from danlu.data.order import smallest
from danlu.data.packing import Pack, best_fit


class Rows:
    """R rows of S sets; set s holds the rows bounds[s]:bounds[s+1]. number[R] in its set, lengths[R] in tokens."""

    def __init__(self, sets: Sequence[TokenSet], rows: Sequence[np.ndarray] | None = None) -> None:
        self.sets = list(sets)
        chosen = [np.arange(len(one)) for one in sets] if rows is None else rows
        self.bounds = np.cumsum([0, *map(len, chosen)])
        most = smallest(max((len(one) for one in sets), default=0))
        self.number = np.concatenate([some.astype(most) for some in chosen])
        pairs = zip(sets, chosen, strict=True)
        self.lengths = np.concatenate([one.lengths[some].astype(np.int32) for one, some in pairs])

    def __len__(self) -> int:
        return len(self.number)

    @property
    def names(self) -> list[str]:
        """The sets' names."""
        return [one.name for one in self.sets]

    @property
    def held(self) -> list[Held]:
        """What each set holds."""
        return [Held(one.name, len(one.files), partial(self.total, at)) for at, one in enumerate(self.sets)]

    def total(self, at: int, by: Unit) -> float:
        """What one set holds of a unit."""
        return float(self.amounts(at, by).sum(dtype=np.float64))

    def part(self, at: int, array: np.ndarray) -> np.ndarray:
        """What belongs to one set."""
        return array[self.bounds[at] : self.bounds[at + 1]]

    def amounts(self, at: int, by: Unit) -> np.ndarray:
        """What each row of one set counts; of a file's bytes, every row has the same part."""
        numbers = self.part(at, self.number)
        if by == "tokens":
            return self.part(at, self.lengths)
        if by == "trained_tokens":
            return np.maximum(self.sets[at].num_trained[numbers], 1)  # a source of nothing would never have its share
        each = 1.0 if by == "rows" else stored(self.sets[at].files) / max(1, len(numbers))
        return np.broadcast_to(np.float64(each), len(numbers))  # takes no memory

    def pack(self, rows: Sequence[int]) -> Pack:
        """One pack of these rows."""
        owners = (np.searchsorted(self.bounds, rows, side="right") - 1).tolist()
        numbers = self.number[list(rows)].tolist()
        places = [(self.sets[at], number) for at, number in zip(owners, numbers, strict=True)]
        answers = [answer for one, number in places for answer in one.answers(number)]
        return Pack.of([answer[:2] for answer in answers], [answer[2] for answer in answers])

    def packs(self, capacity: int) -> list[Pack]:
        """Every row, in as few packs as best fit finds."""
        return [self.pack(rows) for rows in best_fit(self.lengths.tolist(), capacity)]


def stored(files: Sequence[str]) -> float:
    """The size of some files, as they lie there."""
    return float(sum(stored_bytes(Url(file) if is_url(file) else Path(file)) for file in files))

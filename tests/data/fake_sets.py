"""Token sets that hold nothing but lengths, for tests of the order alone."""

from collections.abc import Sequence

import numpy as np

from danlu.data.loader import Step
from danlu.data.packing import Segment
from danlu.data.rows import Rows


class FakeSet:
    """Rows of given lengths; every second token is trained."""

    def __init__(self, name: str, lengths: Sequence[int], file: str = __file__) -> None:
        self.name, self.files = name, [file]
        self.lengths = np.array(lengths, np.int64)
        self.num_trained = self.lengths // 2

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        count = int(self.lengths[number])
        return np.full(count, number), np.arange(count) % 2 == 1

    def segment(self, number: int) -> Segment:
        return Segment(self.name, "rows", number)

    def answers(self, number: int) -> list[tuple[np.ndarray, np.ndarray, Segment]]:
        return [(*self.row(number), self.segment(number))]


def fake_rows(*sets: Sequence[int]) -> Rows:
    """Rows of sets called a, b, c."""
    return Rows([FakeSet(chr(ord("a") + n), lengths) for n, lengths in enumerate(sets)])  # type: ignore[list-item]


def rows_of(step: Step) -> list[list[int]]:
    """The rows of each pack."""
    return [[segment.row for segment in pack.segments] for pack in step.packs]


def sources_of(step: Step) -> list[str]:
    """The sources of all rows of a step."""
    return [segment.source for pack in step.packs for segment in pack.segments]

"""What a damaged file or row is, and what is done about it: the run stops, or goes on without it and counts it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from danlu.core.errors import DataError

OnDamage = Literal["stop", "skip"]


class Damage(DataError):
    """Bytes that cannot be read as rows. `reason` is what a report counts; the message says where and what to do."""

    def __init__(self, message: str, reason: str, rows: int = 1) -> None:
        super().__init__(message, reason, rows)
        self.reason, self.rows = reason, rows

    def __str__(self) -> str:
        return self.args[0]


@dataclass(frozen=True, slots=True)
class Damaged:
    """Stands where rows were lost: whoever reads rows drops it and counts it."""

    reason: str
    rows: int = 1
    """how many are known to be lost; at least one"""


Answer = Callable[[Damage], Damaged]
"""what a reader gives for a damaged row, unless it raises"""


def stop(damage: Damage) -> Damaged:
    """Raise it."""
    raise damage


def skip(damage: Damage) -> Damaged:
    """Go on without it."""
    return Damaged(damage.reason, damage.rows)


ANSWERS: dict[OnDamage, Answer] = {"stop": stop, "skip": skip}

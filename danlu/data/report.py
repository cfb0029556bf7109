"""What became of every row: counted, with the first place where each thing happened."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Counted:
    """How often something happened, and where first."""

    count: int
    first: str


@dataclass(slots=True)
class SourceReport:
    """One source's rows and tokens, in and out."""

    rows_in: int = 0
    rows_out: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    truncated_rows: int = 0
    split_rows: int = 0
    tokens_lost: int = 0
    trained_tokens_lost: int = 0
    dropped: dict[str, Counted] = field(default_factory=dict)
    changed: dict[str, Counted] = field(default_factory=dict)
    format: str = ""
    files: list[str] = field(default_factory=list)

    @property
    def rows_dropped(self) -> int:
        """Rows that gave nothing to train on."""
        return sum(reason.count for reason in self.dropped.values())

    def drop(self, reason: str, place: str) -> None:
        """Count a row that is left out."""
        count(self.dropped, reason, 1, place)

    def change(self, what: str, place: str) -> None:
        """Count a row that was changed."""
        count(self.changed, what, 1, place)

    def add(self, other: "SourceReport") -> None:
        """Add the counts of later rows."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, int):
                setattr(self, one.name, max(mine, theirs) if one.name == "longest" else mine + theirs)
        for kind in ("dropped", "changed"):
            for reason, found in getattr(other, kind).items():
                count(getattr(self, kind), reason, found.count, found.first)

    @classmethod
    def of(cls, tree: dict[str, Any]) -> "SourceReport":
        """Read back what `asdict` wrote."""
        told: dict[str, Any] = {
            key: {reason: Counted(**one) for reason, one in tree[key].items()} for key in ("dropped", "changed")
        }
        return cls(**{**tree, **told})


def count(where: dict[str, Counted], what: str, times: int, place: str) -> None:
    """Add to a count."""
    if what in where:
        where[what].count += times
    else:
        where[what] = Counted(times, place)


@dataclass(slots=True)
class DataReport:
    """Every source's report, by name."""

    sources: dict[str, SourceReport] = field(default_factory=dict)
    held_out: dict[str, int] = field(default_factory=dict)
    """rows kept for evaluation"""

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for data_report.json."""
        return asdict(self)

    def lines(self) -> Iterable[str]:
        """What a person should know, a line each."""
        for name, one in self.sources.items():
            rows = f"{one.rows_out:,} of {one.rows_in:,} rows"
            yield f"{name}: {rows}, {one.tokens:,} tokens, {one.trained_tokens:,} trained"
            for reason, found in one.dropped.items():
                yield f"  dropped {found.count:,}: {reason} (first {found.first})"
            for what, found in one.changed.items():
                yield f"  changed {found.count:,}: {what} (first {found.first})"
            if one.tokens_lost:
                yield (
                    f"  {one.truncated_rows:,} rows cut: {one.tokens_lost:,} tokens lost, "
                    f"{one.trained_tokens_lost:,} of them trained"
                )

"""What became of every row: counted, with the first places where each thing happened."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PLACES = 3
REASONS = 100
"""reasons may quote the rows: past so many, they are counted together, or a bad file would fill the memory"""
OTHER = "other reasons"
NO_ANSWER = re.compile(
    r"'(output|targets?|answer|assistant|response|completion|reply|chosen|selected)' is empty"
    r"|no answer|an empty (answer|reply)"
)


@dataclass(slots=True)
class Counted:
    """How often something happened, and where first."""

    count: int = 0
    places: list[str] = field(default_factory=list)
    """the first of them"""

    @property
    def first(self) -> str:
        """The first place."""
        return self.places[0] if self.places else ""

    def add(self, count: int, places: Iterable[str]) -> None:
        """Count more of it."""
        self.count += count
        self.places += [*places][: PLACES - len(self.places)]


@dataclass(slots=True)
class SourceReport:
    """One source's rows and tokens, in and out."""

    rows_in: int = 0
    rows_out: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    tokens_lost: int = 0
    trained_tokens_lost: int = 0
    truncated: Counted = field(default_factory=Counted)
    split: Counted = field(default_factory=Counted)
    duplicates: Counted = field(default_factory=Counted)
    """rows whose ids an earlier row of the source has"""
    empty_answers: Counted = field(default_factory=Counted)
    dropped: dict[str, Counted] = field(default_factory=dict)
    changed: dict[str, Counted] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    """tokens of a row at some percentiles: {"50": 120, ...}"""
    histogram: dict[str, int] = field(default_factory=dict)
    """rows of up to so many tokens, and more than the bar before"""
    format: str = ""
    files: list[str] = field(default_factory=list)

    @property
    def rows_dropped(self) -> int:
        """Rows that gave nothing to train on."""
        return sum(reason.count for reason in self.dropped.values())

    @property
    def truncated_rows(self) -> int:
        """Rows that lost their beginning or end."""
        return self.truncated.count

    @property
    def split_rows(self) -> int:
        """Rows that became several."""
        return self.split.count

    def drop(self, reason: str, place: str) -> None:
        """Count a row that is left out."""
        count(self.dropped, reason, 1, [place])
        if NO_ANSWER.search(reason):
            self.empty_answers.add(1, [place])

    def lose(self, reason: str, rows: int, place: str) -> None:
        """Count rows that could not be read, of which one was counted as it came in."""
        self.rows_in += rows - 1
        count(self.dropped, reason, rows, [place])

    def change(self, what: str, place: str) -> None:
        """Count a row that was changed."""
        count(self.changed, what, 1, [place])

    def losses(self) -> dict[str, Counted]:
        """What may be limited, by the name of its limit."""
        reasons = self.dropped.values()
        dropped = Counted(self.rows_dropped, [place for reason in reasons for place in reason.places[:1]][:PLACES])
        return {
            "dropped": dropped,
            "truncated": self.truncated,
            "duplicates": self.duplicates,
            "empty_answers": self.empty_answers,
        }

    def add(self, other: "SourceReport") -> None:
        """Add the counts of later rows."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, int):
                setattr(self, one.name, max(mine, theirs) if one.name == "longest" else mine + theirs)
            elif isinstance(mine, Counted):
                mine.add(theirs.count, theirs.places)
        for kind in ("dropped", "changed"):
            for reason, found in getattr(other, kind).items():
                count(getattr(self, kind), reason, found.count, found.places)

    @classmethod
    def of(cls, tree: dict[str, Any]) -> "SourceReport":
        """Read back what `asdict` wrote."""
        told: dict[str, Any] = {
            key: {reason: Counted(**one) for reason, one in tree[key].items()} for key in ("dropped", "changed")
        }
        told |= {key: Counted(**tree[key]) for key in ("truncated", "split", "duplicates", "empty_answers")}
        return cls(**{**tree, **told})


def count(where: dict[str, Counted], what: str, times: int, places: Iterable[str]) -> None:
    """Add to a count."""
    if what not in where and len(where) >= REASONS:
        what = OTHER
    where.setdefault(what, Counted()).add(times, places)


@dataclass(slots=True)
class DataReport:
    """Every source's report, by name."""

    sources: dict[str, SourceReport] = field(default_factory=dict)
    held_out: dict[str, int] = field(default_factory=dict)
    """rows kept for evaluation"""

    def shares(self) -> dict[str, float]:
        """Each source's part of all tokens, 0-1."""
        whole = sum(one.tokens for one in self.sources.values()) or 1
        return {name: one.tokens / whole for name, one in self.sources.items()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for data_report.json."""
        return asdict(self) | {"token_shares": self.shares()}

    def lines(self) -> Iterable[str]:
        """What a person should know, a line each."""
        for name, one in self.sources.items():
            rows = f"{one.rows_in:,} rows read, {one.rows_out:,} kept"
            yield f"{name}: {rows}, {one.tokens:,} tokens, {one.trained_tokens:,} trained"
            for reason, found in one.dropped.items():
                yield f"  dropped {found.count:,}: {reason} (first {found.first})"
            for what, found in one.changed.items():
                yield f"  changed {found.count:,}: {what} (first {found.first})"
            if one.duplicates.count:
                yield f"  {one.duplicates.count:,} rows are the same as an earlier one (first {one.duplicates.first})"
            if one.split.count:
                yield f"  {one.split.count:,} rows split, as they are longer (first {one.split.first})"
            if one.tokens_lost or one.trained_tokens_lost:
                yield (
                    f"  {one.truncated.count:,} rows cut: {one.tokens_lost:,} tokens lost, "
                    f"{one.trained_tokens_lost:,} of them trained{first(one.truncated)}"
                )


def first(found: Counted) -> str:
    """The first place of something, in brackets."""
    return f" (first {found.first})" if found.places else ""

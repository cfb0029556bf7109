"""What a run bears of its data: a source that loses more of its rows stops it before training."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from danlu.core.errors import DataError
from danlu.core.parts import Config
from danlu.data.report import DataReport, SourceReport

Share = Annotated[float, Field(ge=0, le=1)] | None


class Limits(Config):
    """The most of a source's rows that may go wrong, each as a share (0-1) of the rows read."""

    dropped: Share = None
    """rows that give nothing to train on"""
    truncated: Share = None
    """rows that are cut at max_length"""
    duplicates: Share = None
    """rows that are the same as an earlier one of their source"""
    empty_answers: Share = None
    """rows without an answer"""

    def check(self, report: DataReport) -> None:
        """A `DataError` that names every source over a limit, what was found, what is allowed, and where first."""
        broken = [f"{name}: {line}" for name, one in report.sources.items() for line in self.broken_by(one)]
        if broken:
            told = "\n  ".join(broken)
            raise DataError(f"the data is over its limits:\n  {told}\nMend the rows, or raise these limits.")

    def broken_by(self, report: SourceReport) -> Iterator[str]:
        """One line for each limit that a source is over."""
        for name, found in report.losses().items():
            allowed = getattr(self, name)
            share = found.count / max(1, report.rows_in)
            if allowed is not None and share > allowed:
                yield (
                    f"{name.replace('_', ' ')}: {found.count:,} of {report.rows_in:,} rows ({share:.2%}), "
                    f"{allowed:.2%} allowed by data.limits.{name} (first {', '.join(found.places)})"
                )

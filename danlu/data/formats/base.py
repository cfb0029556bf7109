"""What every format does, and how it says that a row is of no use."""

from typing import Any, ClassVar

from danlu.core.errors import DataError
from danlu.core.parts import Part
from danlu.samples import Sample


class Unreadable(DataError):
    """This row gives no sample; the message is the reason, which is counted."""


class Format(Part):
    """How one shape of rows is read."""

    gives: ClassVar[type]
    """the sample that a row becomes"""
    shape: ClassVar[str]
    """the keys of a row, for people"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        raise NotImplementedError

    def read(self, row: Any) -> Sample:
        """The sample of a row, or `Unreadable` with the reason."""
        raise NotImplementedError


def text_of(row: dict[str, Any], key: str, *, optional: bool = False) -> str:
    """The text under a key."""
    value = row.get(key)
    if value is None:
        if optional:
            return ""
        raise Unreadable(f"no {key!r}")
    if not isinstance(value, str):
        raise Unreadable(f"{key!r} is {type(value).__name__}, not text")
    if not optional and not value.strip():
        raise Unreadable(f"{key!r} is empty")
    return value

"""Rows of plain text, for pre-training: {text}, or {title, content}."""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, text_of
from danlu.samples import Document


class Text(Format):
    """One text, trained whole."""

    gives = Document
    shape = "{text} or {title?, content}"

    joined_by: str = " "
    """what stands between title and content"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and ("text" in row or "content" in row)

    def read(self, row: dict[str, Any]) -> Document:
        """The text of a row, under its title where it has one."""
        key = "text" if row.get("text") is not None else "content"
        if row.get(key) is None:
            raise Unreadable("no 'text' or 'content'")
        text = text_of(row, key)
        title = text_of(row, "title", optional=True) if key == "content" else ""
        return Document(f"{title}{self.joined_by}{text}" if title else text)

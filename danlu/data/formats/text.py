"""Rows of plain text, for pre-training: {text}, or {title, content}."""

from typing import Any

from danlu.data.formats.base import Format, Unreadable
from danlu.samples import Document


class Text(Format):
    """One text, trained whole."""

    gives = Document
    shape = "{text} or {title?, content}"

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and any(isinstance(row.get(key), str) for key in ("text", "content"))

    def read(self, row: dict[str, Any]) -> Document:
        """The text of a row, under its title where it has one."""
        text = row.get("text", row.get("content"))
        if not isinstance(text, str):
            raise Unreadable("no 'text' or 'content'")
        if not text.strip():
            raise Unreadable("a blank text")
        title = row.get("title") if "text" not in row else None
        return Document(f"{title} {text}" if title else text)

"""Pre-training rows whose parts are told apart by special tokens, such as title_token and content_token."""

from typing import Any

from danlu.data.formats.base import Format, Unreadable, text_of
from danlu.samples import Document

SHAPES = (("content",), ("question", "answer"), ("code",), ("user", "assistant"))


class MarkedText(Format):
    """One text of several parts, each behind the special token that the tokenizer has for it."""

    gives = Document
    shape = "{text}, {title?, content}, {question, answer}, {code} or {user, assistant}"
    recognised = False  # whether the tokenizer has such tokens is not seen in the rows

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape."""
        return isinstance(row, dict) and ("text" in row or any(set(keys) <= row.keys() for keys in SHAPES))

    def read(self, row: dict[str, Any]) -> Document:
        """The parts end to end, and where the token of each one stands; a plain text needs none."""
        if row.get("text") is not None:
            return Document(text_of(row, "text"))
        text, marks = "", []
        for key in parts_of(row):
            marks.append((len(text), f"{key}_token"))
            text += text_of(row, key)
        return Document(text, marks)


def parts_of(row: dict[str, Any]) -> tuple[str, ...]:
    """The keys of the first shape that a row has."""
    found = next((keys for keys in SHAPES if all(row.get(key) is not None for key in keys)), None)
    if found is None:
        raise Unreadable(f"none of {MarkedText.shape}")
    return ("title", *found) if found == ("content",) and row.get("title") else found

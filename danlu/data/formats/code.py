"""Rows of source code: {code}, or {content} of a file with its path, as StarCoder's data has them."""

from typing import Any

from danlu.data.formats.base import text_of
from danlu.data.formats.text import Text
from danlu.samples import Document

PATHS = ("path", "file_path", "filename", "max_stars_repo_path")


class Code(Text):
    """One file of code, trained whole."""

    shape = "{code, path?} or {content, path}"

    name_the_file: bool = False
    """write the file's path on a line before its code"""

    @classmethod
    def fits(cls, row: Any) -> bool:
        """Whether a row has this shape; what has a text is a text."""
        if not isinstance(row, dict) or "text" in row:
            return False
        return "code" in row or ("content" in row and any(path in row for path in PATHS))

    def read(self, row: dict[str, Any]) -> Document:
        """The code as it is, indented where it begins so."""
        code = text_of(row, "code" if "code" in row else "content")
        path = next((row[key] for key in PATHS if isinstance(row.get(key), str)), "")
        return Document(f"{path}\n{code}" if self.name_the_file and path else code)

"""The table of formats in the documentation names them all."""

import re
from pathlib import Path

from danlu.data.formats import formats

PAGE = Path(__file__).parents[3] / "docs/data.md"


def test_every_format_is_in_the_table():
    section = PAGE.read_text(encoding="utf-8").partition("\n## Formats\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == list(formats)

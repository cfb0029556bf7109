"""Fill the `{{name}}` slots of a data file, so that a model can be taught who it is."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from danlu.core.errors import DataError, UserError
from danlu.core.files import write_atomic
from danlu.data.files.unpack import lines

SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}|<(NAME|AUTHOR)>")


def fill(source: Path, to: Path, values: Mapping[str, str]) -> int:
    """Write `source` to `to` with every `{{name}}` or `<NAME>` replaced; returns how many were."""
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    filled, left, count = [], dict[str, str](), 0
    for number, line in lines(source):
        text, missing, found = filled_line(line, values)
        filled.append(text + "\n")
        left = dict.fromkeys(missing, f"{source}:{number}") | left
        count += found
    if left:
        told = ", ".join(f"{slot} (first {place})" for slot, place in left.items())
        raise DataError(f"no value for {told}; give one for each, such as name=Nova")
    if not count:
        raise DataError(f"{source}: holds no slot such as {{{{name}}}} or <NAME>")
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(to, "".join(filled))
    return count


def filled_line(line: str, values: Mapping[str, str]) -> tuple[str, list[str], int]:
    """A line with its slots filled, the slots that have no value, and how many were filled."""
    known = {name.lower(): value for name, value in values.items()}
    slots = list(SLOT.finditer(line))
    missing = [slot[0] for slot in slots if (slot[1] or slot[2]).lower() not in known]
    if missing:
        return line, missing, 0
    # inside a JSON text, quotes must stay escaped
    as_json = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in known.items()}
    return SLOT.sub(lambda slot: as_json[(slot[1] or slot[2]).lower()], line), [], len(slots)

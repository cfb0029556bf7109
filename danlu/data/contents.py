"""What is in a file, remembered: reading a large one again only to see that nothing changed takes minutes."""

import hashlib
import json
import os
import time
from pathlib import Path

from danlu.core.files import sha256_of, write_json
from danlu.data.files.manifest import digest_of
from danlu.data.files.url import File, Url

FRESH_SECONDS = 2
"""a file written so short ago may be written again within one tick of its clock, and look the same"""


def content_of(file: File, remembered: Path, *, trust_times: bool) -> str:
    """SHA-256 of a file, from the folder of remembered ones where its path, size, time and inode are as they were."""
    if isinstance(file, Url):
        return digest_of(file)
    if not file.exists():
        return "missing"  # whoever reads it says so, or goes on without it
    file = file.resolve()
    note = remembered / f"{hashlib.sha256(os.fsencode(file)).hexdigest()}.json"
    seen = looks(file)
    if trust_times and (known := read(note)) is not None and known.get("looks") == seen:
        return str(known["sha256"])
    began = time.time()
    content = sha256_of(file)
    settled = began - file.stat().st_mtime > FRESH_SECONDS
    if settled and looks(file) == seen:
        remembered.mkdir(parents=True, exist_ok=True)
        write_json(note, {"path": str(file), "looks": seen, "sha256": content})
    return content


def looks(file: Path) -> list[int]:
    """What changes when a file does: size, time of writing, inode and time of its last change."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns]


def read(note: Path) -> dict | None:
    """What was remembered; nothing where nobody has, or where it is damaged."""
    try:
        found = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "sha256" in found else None

"""The hash that a registry gives for a file, compared with the file."""

import hashlib
import logging
from collections.abc import Sequence

from danlu.core.errors import DataError
from danlu.data.files.url import File, blocks_of

log = logging.getLogger(__name__)


def sha1_of(file: File) -> str:
    """Hex SHA-1 of a file's bytes; registries have it, and it is no guard against an enemy."""
    found = hashlib.sha1(usedforsecurity=False)
    for block in blocks_of(file):
        found.update(block)
    return found.hexdigest()


def check_sha1(files: Sequence[File], expected: str, *, strict: bool) -> None:
    """Say that a file is not the one that was registered; stop there if `strict`."""
    if len(files) == 1:
        found = sha1_of(files[0])
        if found == expected.strip().lower():
            return
        problem = f"{files[0]}: its SHA-1 is {found}, and {expected} is registered; it was changed or cut off"
    else:
        problem = f"{files[0]} and {len(files) - 1} more: one SHA-1 is registered, and no file can be checked with it"
    if strict:
        raise DataError(f"{problem}; fetch it again, or correct the registry")
    log.warning("%s", problem)

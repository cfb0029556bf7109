"""Danlu's cache: folders that are made once on a machine and then only read."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from danlu.core.files import folder_at_once
from danlu.core.lock import Lock


def cache_folder() -> Path:
    """`$DANLU_CACHE`, or ~/.cache/danlu."""
    return Path(os.environ.get("DANLU_CACHE") or Path.home() / ".cache/danlu").expanduser()


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by `make` if no process has done so before; others wait for the one that is at it."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Lock(folder.parent / f".{folder.name}.lock", wait=True, purpose=str(folder)):
        if not folder.is_dir():
            for left in folder.parent.glob(f".{folder.name}.tmp-*"):
                shutil.rmtree(left)  # of a process that was killed at it, as the lock is ours
            with folder_at_once(folder) as aside:
                make(aside)
    return folder

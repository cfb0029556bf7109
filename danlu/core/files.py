"""Files that are whole or absent: atomic writes, hashes, folders that appear at once, and a lock with an owner."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Force a file's or folder's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_at_once(final: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it takes its final name only after it has reached the disk. An exception removes it."""
    aside = final.with_name(f".{final.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, final)
        fsync(final.parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Readers see the old file or the new one, never a part of either."""
    with file_at_once(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """JSON that people can read, written at once."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def folder_at_once(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a folder to fill; it takes its final name only after every file in it has reached the disk.

    With `replace`, a folder that has the name already gives way to it at that moment.

    An exception removes it. A kill leaves `.NAME.tmp-…` beside it, which `sweep` clears.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.tmp-{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        yield aside
        mode = aside.stat().st_mode
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                path.chmod(mode & 0o666)  # safetensors lets only the owner read its files
            fsync(path)
        fsync(aside)
        if replace and final.exists():
            old = final.with_name(f".{final.name}.tmp-{uuid.uuid4().hex[:8]}")
            os.rename(final, old)
            os.rename(aside, final)
            shutil.rmtree(old)
        else:
            os.rename(aside, final)
        fsync(final.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def sweep(parent: Path) -> None:
    """Remove what a killed process left half-written in a folder. Only the holder of its lock may."""
    for left in parent.glob(".*.tmp-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

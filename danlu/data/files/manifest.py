"""What a folder of shards says about itself: how many rows each holds, where they begin, and a SHA-256 of each.

{"kind": "shards", "rows": 100, "bytes": 4711, "shards": [
  {"name": "part-1.jsonl.zst", "first_row": 1, "rows": 10, "bytes": 480, "sha256": "…"}, …]}
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from danlu.core.errors import DataError
from danlu.data.files.url import File, Url, beside, blocks_of, exists, opened

MANIFEST = "manifest.json"
KIND = "shards"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a folder of shards. `first_row` is counted from 1 over all of them."""

    name: str
    first_row: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All shards of a folder, in order."""

    shards: tuple[Shard, ...]

    @cached_property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def shard(self, name: str) -> Shard | None:
        """What is said about a file."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Shard]:
        return {shard.name: shard for shard in self.shards}

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        size = sum(shard.bytes for shard in self.shards)
        return {"kind": KIND, "rows": self.rows, "bytes": size, "shards": [asdict(one) for one in self.shards]}


def manifest_of(file: File) -> Manifest | None:
    """The manifest beside a file, or of a file that is one; nothing where no shards are described."""
    path = beside(file, MANIFEST)
    if isinstance(path, Url):
        return _remote(path)
    try:
        stat = path.stat()
    except OSError:
        return None
    return _local(path, stat.st_mtime_ns, stat.st_ino)


@lru_cache(64)
def _local(path: Path, changed: int, inode: int) -> Manifest | None:
    return read(path, path.read_bytes())


@lru_cache(64)
def _remote(path: Url) -> Manifest | None:
    if not exists(path):
        return None
    with opened(path) as stream:
        return read(path, stream.read())


def read(path: File, content: bytes) -> Manifest | None:
    """A manifest of shards, or nothing if the file is about something else."""
    try:
        tree = json.loads(content)
        if not isinstance(tree, dict) or tree.get("kind") != KIND:
            return None
        shards = tuple(Shard(**one) for one in tree["shards"])
    except (ValueError, KeyError, TypeError) as error:
        if b'"sha256"' not in content:
            return None
        raise DataError(f"{path}: a damaged manifest ({error}); make the shards again") from error
    wrong = next((one.name for one in shards if "/" in one.name or "\\" in one.name or one.name.startswith(".")), None)
    if wrong is not None:
        raise DataError(f"{path}: names {wrong!r}, which is no file of its folder")
    return Manifest(shards)


def shard_of(file: File) -> Shard | None:
    """What a manifest beside it says of a file."""
    manifest = manifest_of(file)
    return manifest.shard(file.name) if manifest else None


def digest_of(url: Url) -> str:
    """Hex SHA-256 of a file behind a URL; a shard is known by its manifest's, without reading it."""
    shard = shard_of(url)
    return shard.sha256 if shard else sha256_of(url)


def sha256_of(file: File) -> str:
    """Hex SHA-256 of a file's bytes, wherever it lies."""
    digest = hashlib.sha256()
    for block in blocks_of(file):
        digest.update(block)
    return digest.hexdigest()

"""A data set as a folder of packed shards: rows as they were, byte for byte, and a manifest that says what is where."""

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from itertools import chain, islice
from pathlib import Path
from shutil import rmtree

import zstandard

from danlu.core.errors import DataError, SetupError, UserError
from danlu.core.files import file_at_once, folder_at_once, write_json
from danlu.core.lock import Lock
from danlu.data.files.find import files_of, kind_of
from danlu.data.files.json_text import is_list, rows_of_bytes
from danlu.data.files.manifest import MANIFEST, Manifest, Shard, manifest_of, shard_of
from danlu.data.files.read import check, read_rows
from danlu.data.files.text import Unit
from danlu.data.files.url import File

LEVEL = 3
BATCH_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_shards(
    files: Sequence[File], folder: Path, shard_size: int, *, threads: int = 1, unit: Unit = "line"
) -> Manifest:
    """The rows of some files as FOLDER/part-1.jsonl.zst …: it appears when it is whole, and replaces older shards."""
    refuse_foreign(folder)
    with Lock(folder.with_name(f".{folder.name}.lock"), purpose=str(folder)), room_for(folder):
        for left in folder.parent.glob(f".{escape(folder.name)}.tmp-*"):
            rmtree(left)  # of a process that was killed at it, as the lock is ours
        with folder_at_once(folder, replace=True) as aside:
            rows = chain.from_iterable(row_lines(file, unit) for file in files)
            manifest = Manifest(tuple(each_shard(rows, aside, shard_size, threads)))
            if not manifest.shards:
                raise DataError(f"{', '.join(map(str, files))}: no rows in it")
            write_json(aside / MANIFEST, manifest.to_dict())
    return manifest


def refuse_foreign(folder: Path) -> None:
    """Only a folder of shards may give way to a new one."""
    if (
        folder.exists()
        and manifest_of(folder / MANIFEST) is None
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise UserError(f"{folder}: exists and holds no manifest of shards; remove it or pack to another folder")


@contextmanager
def room_for(place: Path) -> Iterator[None]:
    """A disk that is full says which, and that nothing half-written is left."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise SetupError(
            f"{place}: no room is left on this disk ({error.strerror}); free some or write to another. "
            "What was there before is unchanged, and nothing half-written is left"
        ) from error


def row_lines(file: File, unit: Unit = "line") -> Iterator[bytes]:
    """Every row as a line of JSON: where it lies as one already, its own bytes."""
    shard = shard_of(file)
    if shard is not None:
        check(file, shard)
    kind = kind_of(file)
    if kind == "lines" or (kind == "json" and not is_list(file)):
        for _, line in rows_of_bytes(file):
            yield line
        return
    for number, row in read_rows(file, unit=unit):
        try:
            yield json.dumps(row, ensure_ascii=False).encode()
        except TypeError as error:
            raise DataError(f"{file}:{number}: holds what JSON cannot say ({error})") from error


class Packer:
    """zstd for shards of any size; a shard's bytes do not depend on how many threads there are."""

    def __init__(self, threads: int) -> None:
        self.small = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self.large = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, threads=max(1, threads))

    def packed(self, rows: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """(rows, packed bytes), a batch at a time."""
        frame = None
        for batch in batches(rows):
            text = b"\n".join([*batch, b""])
            # to start threads for a shard of 40 kB takes four times as long as to pack it
            frame = frame or (self.small if len(text) < BATCH_BYTES else self.large).compressobj()
            yield len(batch), frame.compress(text)
        if frame:
            yield 0, frame.flush()


def each_shard(rows: Iterable[bytes], folder: Path, shard_size: int, threads: int) -> Iterator[Shard]:
    """Write `shard_size` rows to each file."""
    packer = Packer(threads)
    rows, first = iter(rows), 1
    for number, row in enumerate(rows, 1):
        here = chain([row], islice(rows, shard_size - 1))
        shard = write_shard(folder / f"part-{number}.jsonl.zst", packer.packed(here), first)
        first += shard.rows
        yield shard


def write_shard(path: Path, packed: Iterable[tuple[int, bytes]], first_row: int) -> Shard:
    """One file of rows, and what is known of it."""
    digest, size, count = hashlib.sha256(), 0, 0
    with open(path, "wb") as file:
        for rows, part in packed:
            count += rows
            digest.update(part)
            size += file.write(part)
    return Shard(path.name, first_row, count, size, digest.hexdigest())


def batches(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Rows in lists of about a megabyte: packing them one by one would cost more than packing."""
    batch, size = list[bytes](), 0
    for row in rows:
        batch.append(row)
        size += len(row)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def unpack(folder: str, to: Path) -> int:
    """The rows of a folder of shards as one file, in order; how many they are."""
    files = files_of(folder)
    if len({str(file).rpartition("/")[0] for file in files}) > 1:
        raise UserError(f"{folder}: holds several folders of shards; unpack one at a time")
    if to.suffix != ".jsonl":
        raise UserError(f"{to}: rows are unpacked to a .jsonl file")
    count = 0
    to.parent.mkdir(parents=True, exist_ok=True)
    with room_for(to), file_at_once(to) as file:
        for batch in batches(line for one in files for line in row_lines(one)):
            count += len(batch)
            file.write(b"\n".join([*batch, b""]))
    return count

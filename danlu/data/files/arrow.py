"""Arrow files, and the folders that `datasets` saves them in: https://huggingface.co/docs/datasets"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.ipc

from danlu.core.errors import DataError
from danlu.data.files.damage import Answer, Damage
from danlu.data.files.url import File, opened

log = logging.getLogger(__name__)

STATE, SPLITS = "state.json", "dataset_dict.json"
MAGIC = b"ARROW1"
"""how a file of record batches begins; a stream of them, as `datasets` writes, has no such mark"""


def saved_files(folder: Path) -> list[Path] | None:
    """The Arrow files of a folder that `save_to_disk` wrote, of its train split if it has several; None for others."""
    if (folder / SPLITS).is_file():
        splits = entry(folder / SPLITS, "splits")
        if len(splits) > 1 and "train" not in splits:
            raise DataError(f"{folder}: has the splits {', '.join(splits)}; name one, such as {folder / splits[0]}")
        chosen = "train" if "train" in splits else splits[0]
        if len(splits) > 1:
            log.info("%s: the split train is read, of %s", folder, ", ".join(splits))
        folder = folder / chosen
    if not (folder / STATE).is_file():
        return None
    names = [Path(each["filename"]).name for each in entry(folder / STATE, "_data_files")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {missing[0]} is missing, which {STATE} names; save or copy the folder again")
    return [folder / name for name in names]


def entry(file: Path, key: str) -> list[Any]:
    """A list that is not empty, under a key of a small JSON file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not what `save_to_disk` writes (no {key!r}); save the data set again") from error
    if not isinstance(value, list) or not value:
        raise DataError(f"{file}: {key!r} names nothing; save the data set again")
    return value


def arrow_rows(file: File, start: int, answer: Answer) -> Iterator[tuple[int, Any]]:
    """Records of an Arrow file or stream, a batch at a time. Batches before `start` become no rows."""
    number = 0
    with opened(file) as stream:
        try:
            for batch in batches(stream):
                passed = min(max(0, start - number), batch.num_rows)
                yield from enumerate(batch.slice(passed).to_pylist(), number + passed + 1)
                number += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise Damage(
                f"{file}: damaged or no Arrow data after row {number:,} ({error}); copy it again",
                "the rest of a damaged Arrow file",
            ) from error


def batches(stream: IO[bytes]) -> Iterator[pyarrow.RecordBatch]:
    """The record batches of either kind of file."""
    marked = stream.read(len(MAGIC)) == MAGIC
    stream.seek(0)
    if not marked:
        yield from pyarrow.ipc.open_stream(stream)
        return
    whole = pyarrow.ipc.open_file(stream)
    for number in range(whole.num_record_batches):
        yield whole.get_batch(number)

"""Tokenised rows on disk, mapped into memory: written once, found again by what they were made of."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.errors import DataError
from danlu.core.files import write_json
from danlu.data.chunks import Chunk
from danlu.data.packing import Segment
from danlu.data.report import SourceReport
from danlu.data.sources import Place

MANIFEST = "manifest.json"


class TokenSet:
    """The encoded rows of one source. R: rows, N: tokens."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        manifest = read_manifest(folder)
        self.key: str = manifest["key"]
        self.files: list[str] = manifest["files"]
        self.ids = mapped(folder / "tokens.bin", np.dtype(manifest["id_type"]))
        self.trained = mapped(folder / "trained.bin", np.dtype(bool))
        self.offsets: np.ndarray = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self.places: np.ndarray = np.load(folder / "places.npy", mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """[R] tokens of each row."""
        return np.diff(self.offsets)

    @cached_property
    def num_trained(self) -> np.ndarray:
        """[R] trained tokens of each row."""
        return np.add.reduceat(self.trained, self.offsets[:-1], dtype=np.int64) if len(self) else np.zeros(0, np.int64)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids[n], trained[n]) of one row."""
        start, end = self.offsets[number : number + 2]
        return self.ids[start:end], self.trained[start:end]

    def place(self, number: int) -> Place:
        """Which file and row this came from."""
        at, row, _ = self.places[number]
        return int(at), int(row)

    def was_cut(self, number: int) -> bool:
        """Whether a row is only a part of what was read."""
        return bool(self.places[number, 2])

    def segment(self, number: int) -> Segment:
        """A row's place in its file, to go with its tokens."""
        at, row = self.place(number)
        return Segment(self.name, self.files[at], row)

    def where(self, number: int) -> str:
        """file:row, for people."""
        return self.segment(number).where

    @cached_property
    def report(self) -> SourceReport:
        """What became of every row."""
        return SourceReport.of(json.loads((self.folder / "report.json").read_text(encoding="utf-8")))


def mapped(path: Path, kind: np.dtype[Any]) -> np.ndarray:
    """A file as an array; an empty file cannot be mapped."""
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder, or an error where a file has lost bytes since."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, size in manifest["sizes"].items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            raise DataError(f"{folder / name}: {found} bytes instead of {size}; delete {folder} and it is made again")
    return manifest


def write_tokens(folder: Path, chunks: Iterable[Chunk], key: str, id_type: np.dtype[Any], report: SourceReport) -> None:
    """Append chunks to a folder's files; `report` has the source's files and format already."""
    lengths, places = [np.zeros(1, np.int64)], [np.zeros((0, 3), np.int64)]
    with open(folder / "tokens.bin", "wb") as tokens, open(folder / "trained.bin", "wb") as trained:
        for chunk in chunks:
            tokens.write(chunk.ids.tobytes())
            trained.write(chunk.trained.tobytes())
            lengths.append(chunk.lengths)
            places.append(chunk.places)
            report.add(chunk.report)
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)), allow_pickle=False)
    np.save(folder / "places.npy", np.concatenate(places), allow_pickle=False)
    write_json(folder / "report.json", asdict(report))
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    manifest = {"key": key, "id_type": id_type.name, "files": report.files, "sizes": sizes}
    write_json(folder / MANIFEST, manifest)

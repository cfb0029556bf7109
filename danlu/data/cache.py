"""Tokenised rows on disk, mapped into memory: written once, found again by what they were made of."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.errors import DataError
from danlu.core.files import write_json
from danlu.data.chunks import Chunk
from danlu.data.duplicates import repeated
from danlu.data.packing import Segment, judged, split
from danlu.data.report import PLACES, Counted, SourceReport
from danlu.data.sources import Place

MANIFEST = "manifest.json"
KINDS = {
    "trained": np.dtype(bool),
    "offsets": np.dtype(np.int64),
    "lengths": np.dtype(np.int32),
    "num_trained": np.dtype(np.int32),
    "places": np.dtype(np.uint32),
    "hashes": np.dtype(np.uint64),
    "cuts": np.dtype(np.int32),
    "cut_offsets": np.dtype(np.int64),
    "judged": np.dtype(np.float32),
}
"""the files beside tokens.bin, and what they hold; one that opens takes no memory and no time"""
PERCENTILES = (1, 10, 25, 50, 75, 90, 99, 99.9, 100)


class TokenSet:
    """The encoded rows of one source. R: rows, N: tokens.

    ids[N], trained[N] bool, offsets[R+1], lengths[R], num_trained[R], places[R, 3]: file, row and whether it was cut;
    hashes[R]: equal where the ids are. Empty unless answers are compared or judged: cuts[C], where in its row another
    answer begins; cut_offsets[R+1]; judged[R], a rating or a margin.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        manifest = read_manifest(folder)
        self.key: str = manifest["key"]
        self.files: list[str] = manifest["files"]
        self.ids = mapped(folder / "tokens.bin", np.dtype(manifest["id_type"]))
        self.trained = self._file("trained")
        self.offsets = self._file("offsets")
        self.lengths = self._file("lengths")
        self.num_trained = self._file("num_trained")
        self.places = self._file("places").reshape(-1, 3)
        self.hashes = self._file("hashes")
        self.cuts, self.cut_offsets = self._file("cuts"), self._file("cut_offsets")
        self.judged = self._file("judged")
        self.reference: np.ndarray | None = None
        """log-probability of each answer under a reference, row after row, where that was worked out before"""

    def _file(self, name: str) -> np.ndarray:
        return mapped(self.folder / f"{name}.bin", KINDS[name])

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids[n], trained[n]) of one row."""
        start, end = self.offsets[number : number + 2].tolist()
        return self.ids[start:end], self.trained[start:end]

    def answers(self, number: int) -> list[tuple[np.ndarray, np.ndarray, Segment]]:
        """(ids[n], trained[n], where from) of one row, or of each of the answers that it holds."""
        ids, trained = self.row(number)
        segment = self.segment(number)
        if not len(self.judged):
            return [(ids, trained, segment)]
        return split(ids, trained, segment, self.cuts_of(number).tolist(), self.facts(number))

    def cuts_of(self, number: int) -> np.ndarray:
        """Where in a row its second answer begins, its third, and so on."""
        start, end = self.cut_offsets[number : number + 2].tolist()
        return self.cuts[start:end]

    def facts(self, number: int) -> list[dict[str, Any]]:
        """What is known of each answer of a row."""
        first = int(self.cut_offsets[number]) + number
        facts = judged(float(self.judged[number]), len(self.cuts_of(number)))
        if self.reference is not None:
            for fact, logp in zip(facts, self.reference[first : first + len(facts)].tolist(), strict=True):
                fact["reference"] = logp
        return facts

    @property
    def num_answers(self) -> int:
        """Answers of all rows."""
        return len(self) + len(self.cuts)

    def place(self, number: int) -> Place:
        """Which file and row this came from."""
        at, row, _ = self.places[number].tolist()
        return at, row

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
    if not path.stat().st_size:
        return np.zeros(1, kind)[:0]
    return np.asarray(np.memmap(path, kind, "r"))  # a plain view: slices of a memmap take ten times as long


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
    append(folder, chunks, id_type, report)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    manifest = {"key": key, "id_type": id_type.name, "files": report.files, "sizes": sizes}
    write_json(folder / MANIFEST, manifest)
    tell_lengths(TokenSet(folder, ""), report)
    write_json(folder / "report.json", asdict(report))


def append(folder: Path, chunks: Iterable[Chunk], id_type: np.dtype[Any], report: SourceReport) -> None:
    """Every chunk goes to the disk as it comes, so that memory does not grow with the rows."""
    with ExitStack() as open_files:
        files = {name: open_files.enter_context(open(folder / f"{name}.bin", "wb")) for name in ("tokens", *KINDS)}
        end, num_cuts = 0, None
        files["offsets"].write(np.zeros(1, KINDS["offsets"]).tobytes())
        for chunk in chunks:
            ends = end + np.cumsum(chunk.lengths, dtype=np.int64)
            parts = {
                "offsets": ends,
                "lengths": chunk.lengths,
                "num_trained": trained_in(chunk, ends - end),
                "trained": chunk.trained,
                "places": chunk.places,
                "hashes": chunk.hashes,
                "cuts": chunk.cuts,
                "judged": chunk.judged,
            }
            if len(chunk.judged):
                begin = [[0]] if num_cuts is None else []
                cut_ends = (num_cuts or 0) + np.cumsum(chunk.num_cuts, dtype=np.int64)
                parts["cut_offsets"] = np.concatenate([*begin, cut_ends])
                num_cuts = int(cut_ends[-1])
            files["tokens"].write(chunk.ids.astype(id_type, copy=False).tobytes())
            for name, part in parts.items():
                files[name].write(part.astype(KINDS[name], copy=False).tobytes())
            end += len(chunk.ids)
            report.add(chunk.report)


def trained_in(chunk: Chunk, ends: np.ndarray) -> np.ndarray:
    """[R] trained tokens of each row."""
    sums = np.concatenate([[0], np.cumsum(chunk.trained)])
    return np.diff(sums[np.concatenate([[0], ends])])


def tell_lengths(tokens: TokenSet, report: SourceReport) -> None:
    """What is known only when all rows are there: how long they are, and which come twice."""
    if not len(tokens):
        return
    found = np.percentile(tokens.lengths, PERCENTILES, method="higher").tolist()
    report.lengths = {f"{share:g}": int(length) for share, length in zip(PERCENTILES, found, strict=True)}
    bins = np.bincount(np.ceil(np.log2(tokens.lengths)).astype(int))
    report.histogram = {str(2**power): int(rows) for power, rows in enumerate(bins) if rows}
    twice = repeated(tokens.hashes)
    files = [tokens.places[row] for row in twice[:PLACES]]
    report.duplicates = Counted(len(twice), [f"{report.files[file]}:{row}" for file, row, _ in files])

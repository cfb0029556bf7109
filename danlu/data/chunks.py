"""A chunk of rows becomes ids: the work that is shared out to processes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from danlu.core.errors import DataError
from danlu.data.formats import formats
from danlu.data.formats.base import Format
from danlu.data.length import TooLong, fit, num_trained
from danlu.data.order import spread
from danlu.data.reading import samples_of
from danlu.data.report import SourceReport
from danlu.data.sources import Place, Source
from danlu.samples import Conversation, Document
from danlu.tokens.encode import Encoded, Encoder
from danlu.tokens.templates.base import Template


@dataclass(slots=True)
class Chunk:
    """Encoded rows, end to end. R: rows, N: tokens.

    ids[N], trained[N] bool, lengths[R], places[R, 3] uint32: file, row and whether it was cut; hashes[R] uint64: equal
    where the ids are.
    """

    ids: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    hashes: np.ndarray
    report: SourceReport


class Work:
    """Everything that turns rows of one source into ids."""

    def __init__(
        self,
        source: Source,
        format: Format,
        tokenizer: PreTrainedTokenizerFast,
        template: Template,
        max_length: int,
        too_long: TooLong,
        *,
        seed: int = 0,
    ) -> None:
        self.source, self.format = source, format
        self.encoder = Encoder(tokenizer, template, many=True)
        self.max_length = max_length
        self.too_long: TooLong = too_long
        self.seed = seed
        wide = len(tokenizer) > np.iinfo(np.uint16).max
        self.id_type = np.dtype(np.uint32 if wide else np.uint16)

    def __call__(self, rows: list[tuple[Place, Any]]) -> Chunk:
        """Read, encode and fit some rows."""
        report = SourceReport(rows_in=len(rows))
        read = [(place, sample) for place, row in rows for sample in self.read(place, row, report)]
        encoded = self.encoder.samples([sample for _, sample in read])
        kept: list[tuple[Place, Encoded]] = []
        for (place, _), row in zip(read, encoded, strict=True):
            kept += [(place, piece) for piece in self.keep(place, row, report)]
        return self.join(kept, report)

    def read(self, place: Place, row: Any, report: SourceReport) -> list[Conversation | Document]:
        """A row's samples; none where it is dropped, which is counted."""
        samples = samples_of(self.source, self.format, place, row, report)
        written = [sample for sample in samples if isinstance(sample, Conversation | Document)]
        if len(written) < len(samples):
            name, gives = formats.name_of(self.format), self.format.gives.__name__
            raise DataError(f"{self.source.where(place)}: format {name} gives {gives}, which has no ids yet")
        return written

    def keep(self, place: Place, row: Encoded, report: SourceReport) -> list[Encoded]:
        """The pieces of a row that are worth training on; what is lost is counted."""
        where = self.source.where(place)
        if row.problem:
            report.drop(row.problem, where)
            return []
        if row.note:
            report.change(row.note, where)
        if not row.trained[1:].any():
            report.drop("nothing in it is trained", where)
            return []
        long = len(row.ids) > self.max_length
        if long and self.too_long == "error":
            raise DataError(
                f"{where}: {len(row.ids):,} tokens, more than max_length {self.max_length:,}; raise it, "
                "or set too_long to truncate_right, truncate_left, split, sample or drop"
            )
        if not long:
            return [row]
        # a piece's first id is nobody's target
        pieces = [piece for piece in self.fitted(place, row) if piece.trained[1:].any()]
        if not pieces:
            dropped = self.too_long == "drop"
            too_long = f"longer than {self.max_length:,} tokens"
            report.drop(too_long if dropped else "nothing trained is left after truncation", where)
        else:
            (report.split if self.too_long == "split" else report.truncated).add(1, [where])
        report.tokens_lost += len(row.ids) - sum(len(piece.ids) for piece in pieces)
        report.trained_tokens_lost += num_trained(row) - sum(map(num_trained, pieces))
        return pieces

    def fitted(self, place: Place, row: Encoded) -> list[Encoded]:
        """The pieces of a row that is too long."""
        luck = float(spread(self.seed, np.array([place]))[0]) if self.too_long == "sample" else 0.0
        return fit(row, self.max_length, self.too_long, luck=luck, eos=next(iter(self.encoder.eos), None))

    def join(self, kept: list[tuple[Place, Encoded]], report: SourceReport) -> Chunk:
        """Rows end to end, and their counts."""
        rows = [row for _, row in kept]
        lengths = np.array([len(row.ids) for row in rows], np.int32)
        ids = np.concatenate([row.ids for row in rows] or [np.zeros(0)]).astype(self.id_type)
        trained = np.concatenate([row.trained for row in rows] or [np.zeros(0)]).astype(bool)
        report.rows_out, report.tokens, report.trained_tokens = len(rows), len(ids), int(trained.sum())
        report.longest = int(lengths.max(initial=0))
        places = np.array([(*place, row.cut) for place, row in kept], np.uint32).reshape(-1, 3)
        return Chunk(ids, trained, lengths, places, hashes_of(ids, lengths), report)


def hashes_of(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[R] uint64: the same for rows with the same ids: the sum of each id mixed with its place (splitmix64)."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(ids)) - np.repeat(starts, lengths)
    mixed = (place.astype(np.uint64) << np.uint64(32)) + ids + np.uint64(1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.add.reduceat(mixed, starts, dtype=np.uint64) if len(lengths) else np.zeros(0, np.uint64)

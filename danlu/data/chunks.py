"""A chunk of rows becomes ids: the work that is shared out to processes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from danlu.core.errors import DataError
from danlu.data.answers import COMPARED, answers_of, judgement_of
from danlu.data.formats.base import Format
from danlu.data.length import TooLong, alike, fit, num_trained
from danlu.data.order import spread
from danlu.data.reading import samples_of
from danlu.data.report import SourceReport
from danlu.data.sources import Place, Source
from danlu.samples import PreferencePair, Prompt, Sample
from danlu.tokens.encode import Encoded, Encoder
from danlu.tokens.templates.base import Template


@dataclass(slots=True)
class Chunk:
    """Encoded rows, end to end. R: rows, N: tokens.

    ids[N], trained[N] bool, lengths[R], places[R, 3] uint32: file, row and whether it was cut; hashes[R] uint64: equal
    where the ids are. A row may hold several answers to one prompt, each after the prompt, end to end: num_cuts[R] of
    cuts[C] int32, the places in a row where another begins. judged[R] float32: a rating, or a pair's margin. Those of
    rows that are not compared or judged are empty.
    """

    ids: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    hashes: np.ndarray
    report: SourceReport
    num_cuts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    cuts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    judged: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(slots=True)
class Kept:
    """A row as it is learnt from: one piece, or the answers that are compared."""

    place: Place
    pieces: list[Encoded]
    judgement: float


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
        if format.gives in COMPARED and too_long in ("split", "sample"):
            raise DataError(
                f"{source.path}: data.too_long: {too_long} makes other rows of a row, and answers that are judged "
                "stay whole; say truncate_left, truncate_right, drop or error"
            )
        wide = len(tokenizer) > np.iinfo(np.uint16).max
        self.id_type = np.dtype(np.uint32 if wide else np.uint16)

    def __call__(self, rows: list[tuple[Place, Any]]) -> Chunk:
        """Read, encode and fit some rows."""
        report = SourceReport(rows_in=len(rows))
        read = [(place, sample) for place, row in rows for sample in self.read(place, row, report)]
        answers = [answers_of(sample) for _, sample in read]
        encoded = iter(self.encoder.samples([one for some in answers for one in some]))
        kept: list[Kept] = []
        for (place, sample), some in zip(read, answers, strict=True):
            group = [next(encoded) for _ in some]
            if isinstance(sample, Prompt) and sample.later:
                group[0].note = "only the first question is asked"
            if isinstance(sample, PreferencePair):
                pieces = self.keep_all(place, group, report)
                kept += [Kept(place, pieces, judgement_of(sample))] if pieces else []
            else:
                kept += [Kept(place, [one], judgement_of(sample)) for one in self.keep(place, group[0], report)]
        return self.join(kept, report)

    def read(self, place: Place, row: Any, report: SourceReport) -> list[Sample]:
        """A row's samples; none where it is dropped, which is counted."""
        return samples_of(self.source, self.format, place, row, report)

    def keep(self, place: Place, row: Encoded, report: SourceReport) -> list[Encoded]:
        """The pieces of a row that are worth training on; what is lost is counted."""
        where = self.source.where(place)
        if row.problem:
            report.drop(row.problem, where)
            return []
        if row.note:
            report.change(row.note, where)
        waits = self.format.gives is Prompt
        if not (waits or row.trained[1:].any()):
            report.drop("nothing in it is trained", where)
            return []
        if not self.is_long(place, row):
            return [row]
        # a piece's first id is nobody's target
        pieces = [piece for piece in self.fitted(place, row) if waits or piece.trained[1:].any()]
        self.count_lost(where, [row], pieces, report)
        return pieces

    def keep_all(self, place: Place, rows: list[Encoded], report: SourceReport) -> list[Encoded]:
        """The answers to one prompt, cut alike where one of them is too long; none unless all can be compared."""
        where = self.source.where(place)
        for problem in {row.problem or ("" if row.trained[1:].any() else "an empty answer") for row in rows} - {""}:
            report.drop(problem, where)
            return []
        for note in {row.note for row in rows} - {""}:
            report.change(note, where)
        if not any(self.is_long(place, row) for row in rows):
            return rows
        pieces: list[Encoded] = []
        if self.too_long != "drop":
            pieces = [piece for piece in alike(rows, self.max_length, self.too_long) if piece.trained[1:].any()]
        if len({piece.ids.tobytes() for piece in pieces}) < len(rows):
            pieces = []
        self.count_lost(where, rows, pieces, report)
        return pieces

    def is_long(self, place: Place, row: Encoded) -> bool:
        """Whether a row has more tokens than it may, which may be an error."""
        long = len(row.ids) > self.max_length
        if long and self.too_long == "error":
            raise DataError(
                f"{self.source.where(place)}: {len(row.ids):,} tokens, more than max_length {self.max_length:,}; raise "
                "it, or set too_long to truncate_right, truncate_left, split, sample or drop"
            )
        return long

    def count_lost(self, where: str, rows: list[Encoded], pieces: list[Encoded], report: SourceReport) -> None:
        """Count what a cut has taken."""
        if not pieces:
            dropped = self.too_long == "drop"
            left = "nothing trained is left" if len(rows) == 1 else "nothing different is left"
            report.drop(f"longer than {self.max_length:,} tokens" if dropped else f"{left} after truncation", where)
        else:
            (report.split if self.too_long == "split" else report.truncated).add(1, [where])
        report.tokens_lost += sum(len(row.ids) for row in rows) - sum(len(piece.ids) for piece in pieces)
        report.trained_tokens_lost += sum(map(num_trained, rows)) - sum(map(num_trained, pieces))

    def fitted(self, place: Place, row: Encoded) -> list[Encoded]:
        """The pieces of a row that is too long."""
        luck = float(spread(self.seed, np.array([place]))[0]) if self.too_long == "sample" else 0.0
        return fit(row, self.max_length, self.too_long, luck=luck, eos=next(iter(self.encoder.eos), None))

    def join(self, kept: list[Kept], report: SourceReport) -> Chunk:
        """Rows end to end, and their counts."""
        rows = [row for one in kept for row in one.pieces]
        lengths = np.array([sum(len(row.ids) for row in one.pieces) for one in kept], np.int32)
        ids = np.concatenate([row.ids for row in rows] or [np.zeros(0)]).astype(self.id_type)
        trained = np.concatenate([row.trained for row in rows] or [np.zeros(0)]).astype(bool)
        report.rows_out, report.tokens, report.trained_tokens = len(kept), len(ids), int(trained.sum())
        report.longest = int(lengths.max(initial=0))
        was_cut = [any(row.cut for row in one.pieces) for one in kept]
        places = np.array([(*one.place, cut) for one, cut in zip(kept, was_cut, strict=True)], np.uint32).reshape(-1, 3)
        chunk = Chunk(ids, trained, lengths, places, hashes_of(ids, lengths), report)
        if self.format.gives in COMPARED:
            cuts = [np.cumsum([len(row.ids) for row in one.pieces])[:-1] for one in kept]
            chunk.num_cuts = np.array([len(some) for some in cuts], np.int32)
            chunk.cuts = np.concatenate(cuts or [np.zeros(0)]).astype(np.int32)
            chunk.judged = np.array([one.judgement for one in kept], np.float32)
        return chunk


def check_prompts(source: Source, too_long: TooLong) -> None:
    """A prompt's last words ask for the answer, so they have to stay."""
    if too_long in ("truncate_right", "split", "sample"):
        raise DataError(
            f"{source.path}: data.too_long: {too_long} cuts off the end of a prompt, or the answer that its row has; "
            "say drop, truncate_left or error"
        )


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

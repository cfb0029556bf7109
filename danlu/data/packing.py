"""The only batch there is: one stream of tokens without padding, made of segments that never see each other."""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
STREAM = ("input_ids", "positions", "targets", "weights")
"""what a pack has of each token"""


@dataclass(slots=True, frozen=True)
class Segment:
    """Where one segment of a pack came from: a source's name, the row in one of its files, and facts about it.

    `rank` is its place among the answers that its row holds, 0 the best: they stay together, one after the other.
    facts: good (bool) of a rated answer, margin of the best of a pair, reference: its log-probability under one.
    """

    source: str
    file: str
    row: int
    facts: dict[str, Any] = field(default_factory=dict)
    rank: int = 0

    @property
    def where(self) -> str:
        """file:row, for people."""
        return f"{self.file}:{self.row}"


@dataclass(slots=True)
class Pack:
    """A stream of T tokens in S segments. T: tokens, S: segments.

    input_ids[T] int64; positions[T] int64, from 0 in each segment; targets[T] int64, the *next* token inside the
    segment, or -100 where nothing is trained (always at a segment's last token); weights[T] float32, what each
    target counts in the loss; cu_seqlens[S+1] int32, where segments begin and end. `host` is what a pack on a GPU was
    made from: who needs to know how many tokens are trained asks there, and does not wait for the GPU.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    cu_seqlens: Tensor
    segments: list[Segment]
    host: "Pack | None" = None

    @property
    def on_host(self) -> "Pack":
        """The same pack where looking at it costs nothing."""
        return self.host or self

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.input_ids.numel()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each segment."""
        return self.cu_seqlens.diff().tolist()

    @property
    def rows(self) -> list[range]:
        """The segments of each row: one, or the answers that it compares."""
        starts = [number for number, segment in enumerate(self.segments) if segment.rank == 0]
        return [range(*pair) for pair in pairwise([*starts, len(self.segments)])]

    def to(self, device: torch.device) -> "Pack":
        """The same pack on a device; cu_seqlens stays on the CPU too, where shapes are decided."""
        there = {name: moved(getattr(self, name), device) for name in STREAM}
        return Pack(**there, cu_seqlens=self.cu_seqlens, segments=self.segments, host=self.on_host)

    @classmethod
    def of(cls, rows: list[tuple[np.ndarray, np.ndarray]], segments: list[Segment] | None = None) -> "Pack":
        """Join rows of (ids[n], trained[n] bool) into one pack."""
        ids = np.concatenate([row for row, _ in rows]).astype(np.int64)
        lengths = np.array([len(row) for row, _ in rows])
        ends = np.cumsum(lengths)
        trained = np.concatenate([mask for _, mask in rows]).astype(bool)
        targets = np.full(len(ids), IGNORED, np.int64)
        targets[:-1] = np.where(trained[1:], ids[1:], IGNORED)
        targets[ends - 1] = IGNORED
        positions = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
        return cls(
            input_ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            targets=torch.from_numpy(targets),
            weights=torch.from_numpy((targets != IGNORED).astype(np.float32)),
            cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
            segments=segments or [Segment("", "", row) for row in range(len(rows))],
        )


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on a device; a copy from memory that is not pinned would wait for what the GPU does."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def split(
    ids: np.ndarray, trained: np.ndarray, segment: Segment, cuts: Sequence[int], facts: Sequence[dict[str, Any]]
) -> list[tuple[np.ndarray, np.ndarray, Segment]]:
    """The answers of a row that holds several; `cuts` are where the second begins, the third, and so on."""
    places = enumerate(pairwise([0, *cuts, len(ids)]))
    return [
        (ids[start:end], trained[start:end], replace(segment, facts=facts[rank], rank=rank))
        for rank, (start, end) in places
    ]


def judged(judgement: float, num_cuts: int) -> list[dict[str, Any]]:
    """Facts of each answer of a row: a rating is of the only one, a margin of the best."""
    if not num_cuts:
        return [{"good": bool(judgement)}]
    return [{"margin": judgement}, *({} for _ in range(num_cuts))]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put rows, longest first, into the fullest pack that still has room; a longer row is a pack by itself."""
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, pack), sorted
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        at = bisect_right(rooms, (lengths[row], -1))
        if at == len(rooms):
            packs.append([row])
            room, pack = capacity, len(packs) - 1
        else:
            room, pack = rooms.pop(at)
            packs[pack].append(row)
        insort(rooms, (room - lengths[row], pack))
    return [sorted(pack) for pack in packs]


def refit(packs: Sequence[Pack], capacity: int) -> list[Pack]:
    """The same rows in packs of another size: those of one step are joined or parted, and none is changed."""
    pieces = [(pack, row, bounds) for pack in packs for bounds in [pack.cu_seqlens.tolist()] for row in pack.rows]
    fitted = best_fit([bounds[row.stop] - bounds[row.start] for _, row, bounds in pieces], capacity)
    return [joined([pieces[n] for n in numbers]) for numbers in fitted]


def joined(pieces: Sequence[tuple[Pack, range, list[int]]]) -> Pack:
    """One pack of some rows, each a pack, which of its segments are the row's, and where its segments begin."""
    stream = {
        name: torch.cat([getattr(pack, name)[bounds[row.start] : bounds[row.stop]] for pack, row, bounds in pieces])
        for name in STREAM
    }
    ends = np.cumsum([0, *(bounds[n + 1] - bounds[n] for _, row, bounds in pieces for n in row)])
    segments = [pack.segments[n] for pack, row, _ in pieces for n in row]
    return Pack(**stream, cu_seqlens=torch.from_numpy(ends.astype(np.int32)), segments=segments, host=None)

"""Answers that a policy wrote, as packs; what a loss is told of each token goes with its segment.

n: tokens of an answer. S: segments of a pack, T: its tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu.data.packing import IGNORED, Pack, Segment, best_fit, moved

ADVANTAGES, LOGPS, REFERENCE = "advantages", "sampled_logps", "reference_logps"
"""[n] of each segment: what its tokens are worth; their log-probability as they were drawn; under the reference"""
CORRECTION = "correction"
"""[n]: what losses are multiplied by where others have drawn the tokens"""


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, and the answer that its row has."""

    ids: list[int]
    expected: list[int] | None
    segment: Segment


@dataclass(slots=True)
class Row:
    """One answer. `told`: name -> [n] numbers for its tokens. `counts`: whether anything is learnt from it."""

    prompt: list[int]
    ids: list[int]
    source: str
    file: str
    row: int
    counts: bool = True
    told: dict[str, list[float]] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """With the prompt."""
        return len(self.prompt) + len(self.ids)

    def to_json(self) -> dict[str, Any]:
        """Plain values; fp32 numbers come back to the bit."""
        return asdict(self)


def asks_in(packs: Sequence[Pack]) -> list[Ask]:
    """The prompts of a step: of a chat all that stands before its last answer, of a prompt everything."""
    found = []
    for pack in packs:
        bounds = pack.cu_seqlens.tolist()
        ids, targets = pack.input_ids.tolist(), pack.targets.tolist()
        for segment, (start, end) in zip(pack.segments, pairwise(bounds), strict=True):
            last = next((n for n in range(end - 2, start - 1, -1) if targets[n] != IGNORED), None)
            if last is None:
                found.append(Ask(ids[start:end], None, segment))
                continue
            first = next((n for n in range(last, start - 1, -1) if targets[n] == IGNORED), start - 1) + 1
            # a target stands one place before its token
            found.append(Ask(ids[start : first + 1], ids[first + 1 : last + 2], segment))
    return found


def packs_of(rows: Sequence[Row], capacity: int) -> list[Pack]:
    """Answers behind their prompts, all of whose tokens are trained."""
    return [pack_of([rows[n] for n in numbers]) for numbers in fitted(rows, capacity)]


def fitted(rows: Sequence[Row], capacity: int) -> list[list[int]]:
    """Which answers go into each pack: those to one prompt together where they fit, as it is read once for all then."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((row.source, row.file, row.row), []).append(number)
    parts: list[list[int]] = []
    for group in groups.values():
        whole = sum(rows[number].num_tokens for number in group) <= capacity
        parts += [group] if whole else [[number] for number in group]
    packs = best_fit([sum(rows[number].num_tokens for number in part) for part in parts], capacity)
    return [sorted(number for part in pack for number in parts[part]) for pack in packs]


def pack_of(rows: Sequence[Row]) -> Pack:
    """One pack of some answers."""
    streams = [
        (np.array(row.prompt + row.ids), np.array([False] * len(row.prompt) + [True] * len(row.ids))) for row in rows
    ]
    facts = [{name: torch.tensor(values) for name, values in row.told.items()} for row in rows]
    segments = [Segment(row.source, row.file, row.row, told) for row, told in zip(rows, facts, strict=True)]
    pack = Pack.of(streams, segments)
    counts = torch.tensor([float(row.counts) for row in rows])
    return replace(pack, weights=pack.weights * spread(counts, pack))


def spread(values_S: Tensor, pack: Pack) -> Tensor:
    """[T] each segment's number at all of its tokens."""
    lengths = pack.cu_seqlens.diff().to(values_S.device, torch.long)
    return torch.repeat_interleave(values_S, lengths, output_size=pack.num_tokens)


def told(pack: Pack, name: str) -> Tensor | None:
    """[T] fp32: what segments know of their answers' tokens, 0 elsewhere; None where nobody told them."""
    if not pack.segments or name not in pack.segments[0].facts:
        return None
    device = pack.input_ids.device
    numbers = moved(torch.cat([segment.facts[name] for segment in pack.segments]), device)
    places = moved((pack.on_host.targets != IGNORED).nonzero()[:, 0], device)
    return torch.zeros(pack.num_tokens, device=device).index_copy(0, places, numbers)


def tell(rows: Sequence[Row], capacity: int, values: Callable[[Pack], dict[str, Tensor]]) -> None:
    """Let rows know numbers of each of their tokens by name; `values` gives [T] of a pack for each."""
    for numbers in fitted(rows, capacity):
        some = [rows[n] for n in numbers]
        pack = pack_of(some)
        for name, values_T in values(pack).items():
            values_N = values_T[pack.targets != IGNORED]
            for row, part in zip(some, values_N.split([len(row.ids) for row in some]), strict=True):
                row.told[name] = part.tolist()

"""Answers to one prompt as pairs of segments. P: pairs of a pack, S: its segments, T: its tokens."""

from itertools import combinations

import torch
from torch import Tensor

from danlu.data.packing import Pack, moved


def pairs_of(pack: Pack) -> tuple[Tensor, Tensor]:
    """better[P], worse[P]: the segments of each pair; of k ranked answers every one with each that is worse."""
    pairs = [pair for row in pack.rows for pair in combinations(row, 2)]
    both = moved(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2), pack.input_ids.device)
    return both[:, 0], both[:, 1]


def sums_of(values_T: Tensor, pack: Pack) -> Tensor:
    """[S] the sum of each segment; one after the other, so that a GPU adds in the same order every time."""
    return torch.stack([part.sum() for part in values_T.split(pack.lengths)])


def sizes_of(pack: Pack) -> Tensor:
    """[S] fp32: how many tokens of each segment are trained."""
    return sums_of(pack.weights, pack).clamp(min=1.0)


def facts_of(pack: Pack, name: str, otherwise: float = 0.0) -> Tensor:
    """[S] fp32: a number that the data tells of segments."""
    told = [float(segment.facts.get(name, otherwise)) for segment in pack.segments]
    return moved(torch.tensor(told), pack.input_ids.device)


def compared(delta_P: Tensor) -> dict[str, tuple[Tensor | float, float]]:
    """How far the better answers are ahead; a tie is not ahead."""
    delta_P = delta_P.detach()
    return {"accuracy": ((delta_P > 0).sum(), len(delta_P)), "delta": (delta_P.sum(), len(delta_P))}

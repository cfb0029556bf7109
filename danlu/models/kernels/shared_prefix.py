"""Segments of a pack that begin alike, such as answers to one prompt: what they begin with is computed once.

Tokens stand before they differ in the same places with the same tokens before them, so causal models give them the same
hidden states. Everything but attention runs over the different tokens alone; attention sees each segment whole.
T: tokens of the pack, U: different ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from danlu.data.packing import Pack, moved

SHORTEST = 8
"""tokens: beginnings that are shorter are not worth it"""


@dataclass(frozen=True, slots=True)
class Shared:
    """places_T: where a token of the pack is among the different ones. firsts_U: where each of those first stands.

    again: (places in the pack, places among the different ones) of tokens that stand there once more; in each part no
    place comes twice, so that adding up is done in one order.
    """

    places_T: Tensor
    firsts_U: Tensor
    again: Sequence[tuple[Tensor, Tensor]]

    def whole(self, x_U: Tensor) -> Tensor:
        """[U,...] -> [T,...], with gradients."""
        return Whole.apply(x_U, self)  # type: ignore[no-any-return]

    def sums(self, d_T: Tensor) -> Tensor:
        """[T,...] -> [U,...], added up in fp32 over all places where a token stands."""
        d_U = d_T.index_select(0, self.firsts_U)
        if not self.again:
            return d_U
        wide_U = d_U.float()
        for places, among in self.again:
            wide_U[among] += d_T[places].float()
        return wide_U.to(d_T.dtype)


class Whole(torch.autograd.Function):
    """See `Shared.whole`."""

    @staticmethod
    def forward(ctx, x_U: Tensor, shared: Shared) -> Tensor:  # type: ignore[override]
        """[T,...]"""
        ctx.shared = shared
        return x_U.index_select(0, shared.places_T)

    @staticmethod
    def backward(ctx, d_T: Tensor):  # type: ignore[override]
        """[U,...]"""
        return ctx.shared.sums(d_T), None


def shared_in(pack: Pack) -> Shared | None:
    """What the answers of a row begin with in common; None where that is nothing."""
    host = pack.on_host
    groups: dict[tuple[str, str, int], list[int]] = {}
    for number, segment in enumerate(pack.segments):
        groups.setdefault((segment.source, segment.file, segment.row), []).append(number)
    if len(groups) == len(pack.segments):
        return None
    bounds, ids = host.cu_seqlens.tolist(), host.input_ids
    places, alike = torch.arange(len(ids)), dict[int, list[tuple[int, int, int]]]()
    for first, *others in groups.values():
        begin, end = bounds[first : first + 2]
        for turn, other in enumerate(others):
            start, stop = bounds[other : other + 2]
            count = beginning(ids[begin:end], ids[start:stop])
            if count >= SHORTEST:
                places[start : start + count] = torch.arange(begin, begin + count)
                alike.setdefault(turn, []).append((start, begin, count))
    if not alike:
        return None
    own = places == torch.arange(len(ids))
    among = own.cumsum(0) - 1
    device = pack.input_ids.device

    def there(ranges: list[tuple[int, int]]) -> Tensor:
        return torch.cat([torch.arange(start, start + count) for start, count in ranges])

    again = [
        (
            moved(there([(start, count) for start, _, count in parts]), device),
            moved(among[there([(begin, count) for _, begin, count in parts])], device),
        )
        for parts in alike.values()
    ]
    return Shared(moved(among[places], device), moved(own.nonzero()[:, 0], device), again)


def beginning(one: Tensor, other: Tensor) -> int:
    """How many tokens two segments begin with in common."""
    count = min(len(one), len(other))
    different = (one[:count] != other[:count]).nonzero()
    return int(different[0]) if len(different) else count

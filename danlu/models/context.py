"""Long rows by several processes: each has some of a stream's tokens, and in attention some of the heads of all tokens.

Ulysses: https://arxiv.org/abs/2309.14509. What learns is whole on each process, or dealt out among all of them.

t: tokens of a process, U: tokens of the stream, H: heads, D: head size, C: processes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup


@dataclass(frozen=True, slots=True)
class Context:
    """The processes that have the same packs."""

    group: ProcessGroup
    rank: int
    count: int

    def spread(self, num_tokens: int) -> "Spread":
        """How they share a stream."""
        return Spread(self, num_tokens, -(-num_tokens // self.count))


@dataclass(frozen=True, slots=True)
class Spread:
    """A stream of `num_tokens`, of which each process has `each`; behind its end there are zeros."""

    context: Context
    num_tokens: int
    each: int

    def own(self, whole: Tensor) -> Tensor:
        """[U,...] -> [t,...]"""
        start = self.context.rank * self.each
        return padded(whole[start : start + self.each], self.each)

    def by_heads(self, own: Tensor) -> Tensor:
        """[t,H,D] of all heads -> [U,H/C,D] of this process's."""
        t, H, D = own.shape
        parts = own.reshape(t, self.context.count, H // self.context.count, D).transpose(0, 1)
        return Exchange.apply(parts, self.context.group).flatten(0, 1)[: self.num_tokens]  # type: ignore[no-any-return]

    def by_tokens(self, heads: Tensor) -> Tensor:
        """[U,H/C,D] -> [t,H,D]"""
        parts = padded(heads, self.each * self.context.count).unflatten(0, (self.context.count, self.each))
        return Exchange.apply(parts, self.context.group).transpose(0, 1).flatten(1, 2)  # type: ignore[no-any-return]

    def together(self, own: Tensor) -> Tensor:
        """[t,H] -> [U,H] on every process. All go on to the same loss, of which each then counts its share."""
        return Together.apply(own, self.context)[: self.num_tokens]  # type: ignore[no-any-return]


class Exchange(torch.autograd.Function):
    """Part n of a process goes to process n: [C,...] -> [C,...]; the way back is the same."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: ProcessGroup) -> Tensor:  # type: ignore[override]
        """The parts that the others had for this process, in their order."""
        ctx.group = group
        return exchanged(parts, group)

    @staticmethod
    def backward(ctx: Any, d_parts: Tensor):  # type: ignore[override]
        """Each gradient goes to who had the part."""
        return exchanged(d_parts, ctx.group), None


def exchanged(parts: Tensor, group: ProcessGroup) -> Tensor:
    """See `Exchange`."""
    sent = parts.contiguous()
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent, group=group)
    return received


class Together(torch.autograd.Function):
    """[t,...] of each process -> [C*t,...]. Each has the gradient of its share of a loss: C times that is all of it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, context: Context) -> Tensor:  # type: ignore[override]
        """All parts, in the order of the processes."""
        ctx.context, ctx.each = context, len(own)
        parts = [torch.empty_like(own) for _ in range(context.count)]
        distributed.all_gather(parts, own.contiguous(), group=context.group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, d_whole: Tensor):  # type: ignore[override]
        """The gradient of this process's tokens."""
        start = ctx.context.rank * ctx.each
        return ctx.context.count * d_whole[start : start + ctx.each], None


def padded(rows: Tensor, count: int) -> Tensor:
    """Zeros behind the last row, until there are so many."""
    return rows if len(rows) == count else torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])

"""Causal attention inside the segments of a pack, written where the next product reads it.

On a GPU by cuDNN's kernels for ragged segments, or by the flash kernels that torch has; elsewhere by plain arithmetic.
Query heads may share key heads. Shapes: T tokens, H query heads, K key heads, D head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from danlu.models.kernels.ragged_attention import (
    ROOM,
    ragged_attention,
    ragged_attention_backward,
    ragged_works,
)
from danlu.models.kernels.segment_attention import Segments, plain_segment_attention

Heads = Sequence[Tensor]
"""q [T,H,D], k and v [T,K,D], in one buffer or each in its own"""


def attend(
    heads: Heads, out: Tensor, segments: Segments, scale: float, window: int | None = None
) -> tuple[Tensor, ...]:
    """Fill out [T,H,D]; returns what the way back needs beside the inputs and the output."""
    if not runs_flash(out):
        q, k, v = heads
        out.copy_(plain_segment_attention(q, k, v, segments, scale=scale, window=window))
        return ()
    if ragged_works(heads, out, segments, scale, window):
        return (ragged_attention(heads, out, segments, scale, window),)
    ends, longest = segments.cu_seqlens, max(segments.lengths)
    q, k, v = heads
    found, *kept, _ = torch.ops.aten._flash_attention_forward(
        q, k, v, ends, ends, longest, longest, 0.0, True, False, scale=scale, window_size_left=before(window)
    )
    out.copy_(found)
    return tuple(kept)


def attend_backward(
    d_out: Tensor,
    heads: Heads,
    out: Tensor,
    kept: Sequence[Tensor],
    d_heads: Heads,
    segments: Segments,
    scale: float,
    window: int | None = None,
) -> None:
    """Fill the gradients of q, k and v."""
    if len(kept) == 1:
        return ragged_attention_backward(d_out, heads, out, kept[0], d_heads, segments, scale, window)
    if not kept:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in heads]
            q, k, v = leaves
            again = plain_segment_attention(q, k, v, segments, scale=scale, window=window)
        found = torch.autograd.grad(again, leaves, d_out)
    else:
        ends, longest = segments.cu_seqlens, max(segments.lengths)
        q, k, v = heads
        found = torch.ops.aten._flash_attention_backward(
            d_out, q, k, v, out, kept[0], ends, ends, longest, longest, 0.0, True, kept[1], kept[2],
            scale=scale,
            window_size_left=before(window),
        )  # fmt: skip
    for d, made in zip(d_heads, found, strict=True):
        d.copy_(made)


def room_for_gradients(x: Tensor) -> Tensor:
    """Like x [T,...], in memory of as many more rows as a kernel is told that there may be."""
    return x.new_empty(-(-len(x) // ROOM) * ROOM if runs_flash(x) else len(x), *x.shape[1:])[: len(x)]


def runs_flash(x: Tensor) -> bool:
    """Whether a GPU's kernel knows this kind of numbers."""
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)


def before(window: int | None) -> int | None:
    """How many tokens before its own a query sees."""
    return None if window is None else window - 1


class VarlenAttention(torch.autograd.Function):
    """The same for a model that runs operation by operation."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float, window: int | None
    ) -> Tensor:
        """[T,H,D]"""
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        kept = attend((q, k, v), out, segments, scale, window)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.how = segments, scale, window
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor):  # type: ignore[override]
        """Gradients of q, k and v."""
        q, k, v, out, *kept = ctx.saved_tensors
        d_heads = [room_for_gradients(x) for x in (q, k, v)]
        attend_backward(d_out.contiguous(), (q, k, v), out, kept, d_heads, *ctx.how)
        return *d_heads, None, None, None

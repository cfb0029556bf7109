"""Causal attention inside segments of one stream, batched over segments of near-equal length.

A processor's flash attention is slow backwards on short segments (bf16, 100 tokens: 4x slower than this file), so short
ones are gathered into [segments, length] blocks and multiplied as one batch; long ones go to torch's own kernel.

Shapes: T tokens, H query heads, K key heads, G = H / K, D head size, S segments of a block, L its longest length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from danlu.models.context import Spread
from danlu.models.kernels.shared_prefix import Shared

LONGEST_BLOCK = 512
"""beyond this length the scores of a block cost more memory and time than torch's flash kernel"""


@dataclass(slots=True, frozen=True)
class Block:
    """Segments of near-equal length: `tokens[S*L]` gathers them (padding repeats a real token), `real` are the places
    in it that are no padding, or None when all are."""

    tokens: Tensor
    real: Tensor | None
    num_segments: int
    length: int

    @property
    def places(self) -> Tensor:
        """Where the block's real rows belong in the stream."""
        return self.tokens if self.real is None else self.tokens[self.real]


class Segments:
    """Where the segments of a stream lie, and how to batch them. Made once for a pack, used by every layer.

    `shared`: the stream has only the different tokens of segments that begin alike; attention sees them whole.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: torch.device | str = "cpu",
        longest_block: int = LONGEST_BLOCK,
        shared: Shared | None = None,
    ) -> None:
        self.shared = shared
        self.spread: Spread | None = None
        """how processes share the tokens, where several do"""
        self.lengths = list(lengths)
        self.ends = torch.tensor(self.lengths).cumsum(0).tolist()
        self.longest_block = longest_block
        self.cu_seqlens = torch.tensor([0, *self.ends], dtype=torch.int32, device=device)
        self.device = torch.device(device)
        self._blocks: list[Block] | None = None
        self.uses = 0
        """how many times attention has kept to them"""
        self.places: dict[str, Tensor] | None = None
        """where a GPU's kernel finds them, once it has been asked"""

    @property
    def long_spans(self) -> list[tuple[int, int]]:
        """(begin, end) of each segment that is attended on its own."""
        return [(end - n, end) for n, end in zip(self.lengths, self.ends, strict=True) if n > self.longest_block]

    @property
    def blocks(self) -> list[Block]:
        """The short segments, batched with others of near-equal length."""
        if self._blocks is None:
            self._blocks = [self._block(members) for members in self._group()]
        return self._blocks

    def _group(self) -> list[list[int]]:
        short = [i for i, n in enumerate(self.lengths) if 0 < n <= self.longest_block]
        groups: list[list[int]] = []
        for i in sorted(short, key=lambda i: self.lengths[i]):
            if not groups or self.lengths[i] > 1.25 * self.lengths[groups[-1][0]] + 8:
                groups.append([])
            groups[-1].append(i)
        return groups

    def _block(self, members: list[int]) -> Block:
        length = self.lengths[members[-1]]
        sizes = torch.tensor([self.lengths[i] for i in members])[:, None]
        begins = torch.tensor([self.ends[i] - self.lengths[i] for i in members])[:, None]
        column = torch.arange(length)[None]
        real = (column < sizes).reshape(-1)
        tokens = (begins + column.minimum(sizes - 1)).reshape(-1)
        places = None if bool(real.all()) else real.nonzero()[:, 0].to(self.device)
        return Block(tokens.to(self.device), places, len(members), length)


@lru_cache(maxsize=64)
def causal_bias(length: int, groups: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, G*L, L]: 0 where a query may look, -inf where it may not; `window` tokens back at most, itself included."""
    query, key = torch.arange(length, device=device)[:, None], torch.arange(length, device=device)[None]
    hidden = (key > query) if window is None else (key > query) | (key <= query - window)
    bias = torch.zeros(length, length, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
    return bias.repeat(groups, 1)[None]


class BlockAttention(torch.autograd.Function):
    """softmax(scale * q k^T + bias) v for each block, written back in stream order. q [T,H,D], k and v [T,K,D]."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, blocks: list[Block], scale: float, window: int | None) -> Tensor:  # type: ignore[override]
        """[T,H,D]; rows that belong to no block are zero."""
        out = torch.zeros_like(q) if sum(len(b.places) for b in blocks) < len(q) else torch.empty_like(q)
        kept: list[Tensor] = []
        for block in blocks:
            q_b, k_b, v_b = (_gather(x, block, k.shape[1]) for x in (q, k, v))
            bias = causal_bias(block.length, q.shape[1] // k.shape[1], window, q.dtype, q.device)
            probs = torch.baddbmm(bias, q_b, k_b.mT, alpha=scale).softmax(-1)
            _scatter(out, torch.bmm(probs, v_b), block, k.shape[1])
            kept += [q_b, k_b, v_b, probs]
        ctx.save_for_backward(*kept)
        ctx.blocks, ctx.scale, ctx.shapes = blocks, scale, (q.shape, k.shape)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor):  # type: ignore[override]
        """Gradients of q, k and v."""
        q_shape, k_shape = ctx.shapes
        d_q, d_k, d_v = d_out.new_zeros(q_shape), d_out.new_zeros(k_shape), d_out.new_zeros(k_shape)
        kept = ctx.saved_tensors  # asked for once: gradient checkpointing gives each tensor a single time
        for i, block in enumerate(ctx.blocks):
            q_b, k_b, v_b, probs = kept[4 * i : 4 * i + 4]
            d_b = _gather(d_out, block, k_shape[1], padding=False)
            _scatter(d_v, torch.bmm(probs.mT, d_b), block, k_shape[1])
            d_probs = torch.bmm(d_b, v_b.mT)
            d_scores = torch._softmax_backward_data(d_probs, probs, -1, probs.dtype).mul_(ctx.scale)
            _scatter(d_q, torch.bmm(d_scores, k_b), block, k_shape[1])
            _scatter(d_k, torch.bmm(d_scores.mT, q_b), block, k_shape[1])
        return d_q, d_k, d_v, None, None, None


def _gather(x: Tensor, block: Block, num_key_heads: int, *, padding: bool = True) -> Tensor:
    """[T,heads,D] -> [S*K, G*L, D]; without `padding` the padded rows are zero."""
    S, L, K, D = block.num_segments, block.length, num_key_heads, x.shape[2]
    rows = x.index_select(0, block.tokens)
    if not padding and block.real is not None:
        rows = torch.zeros_like(rows).index_copy_(0, block.real, rows[block.real])
    return rows.view(S, L, K, -1, D).permute(0, 2, 3, 1, 4).reshape(S * K, -1, D)


def _scatter(out: Tensor, rows: Tensor, block: Block, num_key_heads: int) -> None:
    """The way back of `_gather`, into the block's places of out [T,heads,D]."""
    S, L, K, D = block.num_segments, block.length, num_key_heads, out.shape[2]
    flat = rows.view(S, K, -1, L, D).permute(0, 3, 1, 2, 4).reshape(S * L, -1, D)
    out.index_copy_(0, block.places, flat if block.real is None else flat[block.real])


def segment_attention(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, *, scale: float, window: int | None = None
) -> Tensor:
    """Causal attention inside each segment. q [T,H,D], k and v [T,K,D] -> [T,H,D]."""
    blocks, spans = segments.blocks, segments.long_spans
    if not spans:
        return BlockAttention.apply(q, k, v, blocks, scale, window)  # type: ignore[no-any-return]
    pieces = [_one(q[a:b], k[a:b], v[a:b], scale, window) for a, b in spans]
    out = BlockAttention.apply(q, k, v, blocks, scale, window) if blocks else torch.zeros_like(q)
    places = torch.cat([torch.arange(a, b, device=q.device) for a, b in spans])
    return out.index_copy(0, places, torch.cat(pieces))


def _one(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """One segment through torch's own kernel. [L,H,D] -> [L,H,D]."""
    q_h, k_h, v_h = (x.transpose(0, 1)[None] for x in (q, k, v))
    narrow = window is not None and len(q) > window
    mask = causal_bias(len(q), 1, window, q.dtype, q.device) if narrow else None
    out = scaled_dot_product_attention(q_h, k_h, v_h, mask, is_causal=not narrow, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def plain_segment_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Segments,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What `segment_attention` must equal, one segment after another; also caps scores and drops probabilities."""
    out = []
    for n, end in zip(segments.lengths, segments.ends, strict=True):
        q_s, k_s, v_s = (x[end - n : end].transpose(0, 1) for x in (q, k, v))
        k_s, v_s = (x.repeat_interleave(q.shape[1] // k.shape[1], 0) for x in (k_s, v_s))
        scores = q_s @ k_s.mT * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        probs = (scores + causal_bias(n, 1, window, q.dtype, q.device)).softmax(-1, dtype=torch.float32).to(q.dtype)
        out.append((torch.dropout(probs, dropout, train=dropout > 0) @ v_s).transpose(0, 1))
    return torch.cat(out)

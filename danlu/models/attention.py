"""Attention for packs, behind one name that every transformers model with an attention interface can be told to use."""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from danlu.models.kernels.segment_attention import Segments, plain_segment_attention, segment_attention
from danlu.models.kernels.slot_attention import Slots, slot_attention
from danlu.models.kernels.varlen_attention import VarlenAttention, runs_flash

PACKED = "danlu_packed"
"""what a model's attention implementation is called while it trains"""

BEYOND = ("s_aux", "position_bias", "head_mask")
"""what some architectures add to their attention, and packs cannot have yet: they are read segment by segment"""


@torch.compiler.disable
def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | Slots | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention contract: query [1,H,T,D], key and value [1,K,T,D] -> [1,T,H,D].

    Where rows are written token by token, query is [B,H,1,D], key and value are [B,K,L,D], and it gives [B,1,H,D].
    """
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    foreign = [name for name in BEYOND if kwargs.get(name) is not None]
    if foreign:
        raise ValueError(f"packed attention knows no {', '.join(foreign)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(segments, Slots):
        return slot_attention(query, key, value, segments, scale=scale, window=sliding_window, softcap=softcap), None
    segments.uses += 1
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    shared, spread = segments.shared, segments.spread
    if spread is not None:
        q, k, v = (spread.by_heads(x) for x in (q, k, v))
    if shared is not None:
        q, k, v = (shared.whole(x) for x in (q, k, v))
    if softcap is not None or dropout > 0:
        out = plain_segment_attention(
            q, k, v, segments, scale=scale, window=sliding_window, softcap=softcap, dropout=dropout
        )
    elif runs_flash(q):
        out = VarlenAttention.apply(q, k, v, segments, scale, sliding_window)
    else:
        out = segment_attention(q, k, v, segments, scale=scale, window=sliding_window)
    out = out if shared is None else out.index_select(0, shared.firsts_U)
    return (out if spread is None else spread.by_tokens(out))[None], None


AttentionInterface.register(PACKED, packed_attention)

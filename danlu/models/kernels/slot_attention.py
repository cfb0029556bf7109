"""Attention of one new token in each row to all that stands before it in the row.

B: rows, L: tokens that a row has room for, H: query heads, K: key heads, G = H / K, D: head size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(slots=True, frozen=True)
class Slots:
    """Rows that are written token by token. positions_B int64: where each row's new token stands."""

    positions_B: Tensor

    def seen(self, room: int, window: int | None) -> Tensor:
        """[B,1,1,L] whether a row's new token may look at a place."""
        distance_BL = self.positions_B[:, None] - torch.arange(room, device=self.positions_B.device)
        seen_BL = distance_BL >= 0
        if window is not None:
            seen_BL = seen_BL & (distance_BL < window)
        return seen_BL[:, None, None]


def slot_attention(
    q: Tensor, k: Tensor, v: Tensor, slots: Slots, *, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """q [B,H,1,D], k and v [B,K,L,D] -> [B,1,H,D].

    The queries that share a key head stand where torch expects queries of one head: keys are read once for all of
    them, and never repeated.
    """
    B, H, _, _ = q.shape
    K, room = k.shape[1:3]
    q_BKGD = q.reshape(B, K, H // K, -1)
    seen = slots.seen(room, window)
    if softcap is None:
        out = scaled_dot_product_attention(q_BKGD, k, v, attn_mask=seen, scale=scale)
    else:
        scores = softcap * torch.tanh(q_BKGD @ k.transpose(-1, -2) * (scale / softcap))
        out = scores.float().masked_fill(~seen, -torch.inf).softmax(-1).to(v.dtype) @ v
    return out.reshape(B, 1, H, -1)

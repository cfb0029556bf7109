"""silu(gate) * up, from one product that holds both: https://arxiv.org/abs/2002.05202

Shapes: T tokens, N inner size, R ranks; both [T,2N]: the gates, then the values. Rows may have any stride.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu

from danlu.models.kernels.gpu import block_of, constexpr, runs_kernels, tl, triton, wide

BLOCK = 1024
ROWS, COLUMNS, RANKS = 16, 256, 128
"""of a tile on the way back, and the most ranks that it holds"""


def gated(both: Tensor, out: Tensor) -> None:
    """both [T,2N] -> out [T,N], in place."""
    if not runs_kernels(both):
        return plain_gated(both, out)
    T, N = out.shape
    _forward[(T, triton.cdiv(N, BLOCK))](both, out, both.stride(0), out.stride(0), N, BLOCK, num_warps=4)


def gated_backward(d_out: Tensor, both: Tensor, low: Tensor, a: Tensor, scale: float, again: Tensor) -> Tensor:
    """d both [T,2N] for d_out [T,N] + scale * low [T,R] @ a [R,N]; fills again [T,N] with what `gated` gave.

    That sum is what an adapter adds to the gradient of what it reads; added here, it needs no pass over it of its own.
    """
    if not runs_kernels(both) or len(a) > RANKS:
        plain_gated(both, again)
        return plain_gated_backward(d_out, both, low, a, scale)
    T, N = d_out.shape
    d_both = torch.empty_like(both)
    tensors = d_out, both, d_both, low, a, again
    ranks = max(16, block_of(len(a))) if len(a) else 0  # 16: the smallest that a tile's product takes
    grid = triton.cdiv(N, COLUMNS), triton.cdiv(T, ROWS)
    _backward[grid](*tensors, *(x.stride(0) for x in tensors), T, N, len(a), scale, ranks, ROWS, COLUMNS, num_warps=4)
    return d_both


def plain_gated(both: Tensor, out: Tensor) -> None:
    """What `gated` must equal."""
    gate, up = wide(both).chunk(2, -1)
    out.copy_(silu(gate) * up)


def plain_gated_backward(d_out: Tensor, both: Tensor, low: Tensor, a: Tensor, scale: float) -> Tensor:
    """What `gated_backward` must equal: d silu(x) = s (1 + x (1 - s)) with s = sigmoid(x)."""
    gate, up = wide(both).chunk(2, -1)
    s, d = gate.sigmoid(), torch.addmm(wide(d_out), wide(low), wide(a), alpha=scale)
    return torch.cat([d * up * s * (1 + gate * (1 - s)), d * gate * s], -1).to(both.dtype)


@triton.jit
def _forward(both, out, both_row, out_row, N, BLOCK: constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < N
    gate = tl.load(both + row * both_row + at, mask=real, other=0.0).to(tl.float32)
    up = tl.load(both + row * both_row + N + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * out_row + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=real)


@triton.jit
def _backward(
    d_out, both, d_both, low, a, again, d_out_row, both_row, d_both_row, low_row, a_row, again_row, T, N, R, scale,
    RANKS: constexpr, ROWS: constexpr, COLUMNS: constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    at = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None]
    real = (row < T) & (at < N)
    d = tl.load(d_out + row * d_out_row + at, mask=real, other=0.0).to(tl.float32)
    if RANKS > 0:
        rank = tl.arange(0, RANKS)
        left = tl.load(low + row * low_row + rank[None], mask=(row < T) & (rank[None] < R), other=0.0)
        right = tl.load(a + rank[:, None] * a_row + at, mask=(rank[:, None] < R) & (at < N), other=0.0)
        d += scale * tl.dot(left, right)
    gate = tl.load(both + row * both_row + at, mask=real, other=0.0).to(tl.float32)
    up = tl.load(both + row * both_row + N + at, mask=real, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    kind = d_both.dtype.element_ty
    tl.store(again + row * again_row + at, (gate * s * up).to(kind), mask=real)
    tl.store(d_both + row * d_both_row + at, (d * up * s * (1 + gate * (1 - s))).to(kind), mask=real)
    tl.store(d_both + row * d_both_row + N + at, (d * gate * s).to(kind), mask=real)

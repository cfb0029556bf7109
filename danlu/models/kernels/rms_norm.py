"""Root-mean-square norm of each row, written where the next product wants it: https://arxiv.org/abs/1910.07467

y = round(x / rms(x)) * weight, as Llama's family rounds it. Shapes: T tokens, H hidden. Rows may have any stride.
"""

import torch
from torch import Tensor

from danlu.models.kernels.gpu import block_of, constexpr, runs_kernels, tl, triton, wide

SHARES = 528
"""of the rows, whose parts of a weight's gradient are added up apart: four for each multiprocessor of an H100"""


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """x [T,H], weight [H] -> out [T,H], in place; returns 1 / rms [T], which the way back needs."""
    if not runs_kernels(x):
        return plain_rms_norm(x, weight, eps, out)
    T, H = x.shape
    inverse = torch.empty(T, dtype=torch.float32, device=x.device)
    _forward[(T,)](x, x.stride(0), weight, out, out.stride(0), inverse, eps, H, block_of(H), num_warps=8)
    return inverse


def rms_norm_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, beside: Tensor, *, learns: bool = False
) -> tuple[Tensor, Tensor | None]:
    """d x [T,H] for d_y [T,H], and d weight [H] where the weight learns.

    d x is added to `beside` [T,H]: the gradient that reaches x by its other way, the residual.
    """
    if not runs_kernels(x):
        return plain_rms_norm_backward(d_y, x, weight, inverse, beside, learns=learns)
    T, H = x.shape
    d_x = torch.empty_like(x)
    strides = d_y.stride(0), x.stride(0), beside.stride(0), d_x.stride(0)
    rows = block_of(triton.cdiv(T, SHARES)) if learns else 1
    shares = triton.cdiv(T, rows)
    d_weight = torch.empty(shares, H, dtype=torch.float32, device=x.device) if learns else inverse
    _backward[(shares,)](
        d_y, x, weight, inverse, beside, d_x, d_weight, *strides, T, rows, H, block_of(H), learns, num_warps=8
    )
    return d_x, d_weight.sum(0).to(weight.dtype) if learns else None


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """What `rms_norm` must equal."""
    inverse = torch.rsqrt(wide(x).square().mean(-1) + eps)
    out.copy_((wide(x) * inverse[:, None]).to(x.dtype) * weight)
    return inverse


def plain_rms_norm_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, beside: Tensor, *, learns: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What `rms_norm_backward` must equal."""
    normed, scaled = wide(x) * inverse[:, None], wide(d_y) * wide(weight)
    d_x = inverse[:, None] * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    d_weight = (wide(d_y) * wide(normed.to(x.dtype))).sum(0).to(weight.dtype) if learns else None
    return (d_x + wide(beside)).to(x.dtype), d_weight


@triton.jit
def _forward(x, x_row, weight, out, out_row, inverse, eps, H: constexpr, BLOCK: constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < H
    values = tl.load(x + row * x_row + at, mask=real, other=0.0).to(tl.float32)
    one = tl.rsqrt(tl.sum(values * values) / H + eps)
    tl.store(inverse + row, one)
    scale = tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    rounded = (values * one).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * out_row + at, (rounded * scale).to(out.dtype.element_ty), mask=real)


@triton.jit
def _backward(
    d_y, x, weight, inverse, beside, d_x, d_weight, d_y_row, x_row, beside_row, d_x_row, T,
    ROWS: constexpr, H: constexpr, BLOCK: constexpr, LEARNS: constexpr,
):  # fmt: skip
    share = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    scale = tl.load(weight + at, mask=at < H, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for number in range(ROWS):
        row = share * ROWS + number
        real = (at < H) & (row < T)
        one = tl.load(inverse + row, mask=row < T, other=0.0)
        normed = tl.load(x + row * x_row + at, mask=real, other=0.0).to(tl.float32) * one
        d = tl.load(d_y + row * d_y_row + at, mask=real, other=0.0).to(tl.float32)
        if LEARNS:
            total += d * normed.to(d_x.dtype.element_ty).to(tl.float32)
        scaled = d * scale
        found = one * (scaled - normed * (tl.sum(scaled * normed) / H))
        found += tl.load(beside + row * beside_row + at, mask=real, other=0.0).to(tl.float32)
        tl.store(d_x + row * d_x_row + at, found.to(d_x.dtype.element_ty), mask=real)
    if LEARNS:
        tl.store(d_weight + share * H + at, total, mask=at < H)

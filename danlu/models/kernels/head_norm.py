"""Root-mean-square norm of each query and key head, as Qwen3 has it: https://arxiv.org/abs/2505.09388

y = round(x / rms(x)) * weight, one weight for all query heads and one for all key heads; value heads stay. Shapes: T
tokens, n query heads, k key heads, D head size. Tokens may have any stride, the heads of one lie end to end, queries
first. `heads` are n and k.
"""

import torch
from torch import Tensor

from danlu.models.kernels.gpu import block_of, constexpr, runs_kernels, tl, triton, wide
from danlu.models.kernels.rms_norm import SHARES


def head_norm(x: Tensor, queries: Tensor, keys: Tensor, eps: float, out: Tensor, heads: tuple[int, int]) -> Tensor:
    """x [T,(n+k+...)D] -> out, like x; queries and keys [D]. Returns 1 / rms [T,n+k], for the way back."""
    if not runs_kernels(x):
        return plain_head_norm(x, queries, keys, eps, out, heads)
    T, D = len(x), len(queries)
    inverse = torch.empty(T, sum(heads), dtype=torch.float32, device=x.device)
    sizes = heads[0], sum(heads), x.shape[1] // D, D, block_of(D)
    _forward[(T,)](x, x.stride(0), queries, keys, out, out.stride(0), inverse, eps, *sizes, num_warps=1)
    return inverse


def head_norm_backward(
    d: Tensor, x: Tensor, queries: Tensor, keys: Tensor, inverse: Tensor, heads: tuple[int, int], *, learns: bool
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """d [T,(n+k+...)D], the gradient of what came out, becomes that of x; returns those of weights that learn."""
    if not runs_kernels(x):
        return plain_head_norm_backward(d, x, queries, keys, inverse, heads, learns=learns)
    T, D = len(x), len(queries)
    rows = block_of(triton.cdiv(T, 8 * SHARES)) if learns else 1
    shares = triton.cdiv(T, rows)
    sums = torch.empty(shares, 2, D, dtype=torch.float32, device=x.device) if learns else inverse
    sizes = T, rows, heads[0], sum(heads), D, block_of(D)
    _backward[(shares,)](d, d.stride(0), x, x.stride(0), queries, keys, inverse, sums, *sizes, learns, num_warps=1)
    if not learns:
        return None, None
    of_queries, of_keys = sums.sum(0).to(queries.dtype)
    return of_queries, of_keys


def plain_head_norm(
    x: Tensor, queries: Tensor, keys: Tensor, eps: float, out: Tensor, heads: tuple[int, int]
) -> Tensor:
    """What `head_norm` must equal."""
    each = wide(x).unflatten(1, (-1, len(queries)))
    normed, others = each.split([sum(heads), each.shape[1] - sum(heads)], 1)
    inverse = torch.rsqrt(normed.square().mean(-1) + eps)
    rounded = (normed * inverse[..., None]).to(x.dtype)
    out.copy_(torch.cat([rounded * weights(queries, keys, heads), others.to(x.dtype)], 1).flatten(1))
    return inverse


def plain_head_norm_backward(
    d: Tensor, x: Tensor, queries: Tensor, keys: Tensor, inverse: Tensor, heads: tuple[int, int], *, learns: bool
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """What `head_norm_backward` must equal."""
    of_each, values = (wide(one).unflatten(1, (-1, len(queries)))[:, : sum(heads)] for one in (d, x))
    normed, scaled = values * inverse[..., None], of_each * wide(weights(queries, keys, heads))
    of_queries, of_keys = (of_each * wide(normed.to(x.dtype))).sum(0).split(heads)
    found = inverse[..., None] * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    d[:, : found[0].numel()] = found.flatten(1).to(d.dtype)
    if not learns:
        return None, None
    return of_queries.sum(0).to(queries.dtype), of_keys.sum(0).to(keys.dtype)


def weights(queries: Tensor, keys: Tensor, heads: tuple[int, int]) -> Tensor:
    """[n+k,D]: the weight of each head."""
    return torch.cat([weight.expand(number, -1) for weight, number in zip((queries, keys), heads, strict=True)])


@triton.jit
def _forward(
    x, x_row, queries, keys, out, out_row, inverse, eps,
    QUERIES: constexpr, NORMED: constexpr, HEADS: constexpr, D: constexpr, BLOCK: constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < D
    of_query = tl.load(queries + at, mask=real, other=0.0).to(tl.float32)
    of_key = tl.load(keys + at, mask=real, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    for head in range(HEADS):
        value = tl.load(x + token * x_row + head * D + at, mask=real, other=0.0).to(tl.float32)
        one = tl.rsqrt(tl.sum(value * value) / D + eps)
        normed = (value * one).to(kind).to(tl.float32) * tl.where(head < QUERIES, of_query, of_key)
        tl.store(inverse + token * NORMED + head, one, mask=head < NORMED)
        tl.store(out + token * out_row + head * D + at, tl.where(head < NORMED, normed, value).to(kind), mask=real)


@triton.jit
def _backward(
    d, d_row, x, x_row, queries, keys, inverse, sums, T,
    ROWS: constexpr, QUERIES: constexpr, NORMED: constexpr, D: constexpr, BLOCK: constexpr, LEARNS: constexpr,
):  # fmt: skip
    share = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    of_query = tl.load(queries + at, mask=at < D, other=0.0).to(tl.float32)
    of_key = tl.load(keys + at, mask=at < D, other=0.0).to(tl.float32)
    sum_query = tl.zeros((BLOCK,), tl.float32)
    sum_key = tl.zeros((BLOCK,), tl.float32)
    for number in range(ROWS):
        token = share * ROWS + number
        real = (at < D) & (token < T)
        for head in range(NORMED):
            one = tl.load(inverse + token * NORMED + head, mask=token < T, other=0.0)
            normed = tl.load(x + token * x_row + head * D + at, mask=real, other=0.0).to(tl.float32) * one
            of_head = tl.load(d + token * d_row + head * D + at, mask=real, other=0.0).to(tl.float32)
            if LEARNS:
                of_weight = of_head * normed.to(d.dtype.element_ty).to(tl.float32)
                sum_query += tl.where(head < QUERIES, of_weight, 0.0)
                sum_key += tl.where(head < QUERIES, 0.0, of_weight)
            scaled = of_head * tl.where(head < QUERIES, of_query, of_key)
            found = one * (scaled - normed * (tl.sum(scaled * normed) / D))
            tl.store(d + token * d_row + head * D + at, found.to(d.dtype.element_ty), mask=real)
    if LEARNS:
        tl.store(sums + share * 2 * D + at, sum_query, mask=at < D)
        tl.store(sums + share * 2 * D + D + at, sum_key, mask=at < D)

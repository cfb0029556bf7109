"""Rotary positions: the two halves of each head turn by an angle: https://arxiv.org/abs/2104.09864

Shapes: T tokens, n heads of size D; cos, sin [T,D/2]. Tokens may have any stride, the heads of one lie end to end.
"""

from torch import Tensor

from danlu.models.kernels.gpu import constexpr, runs_kernels, tl, triton, wide


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, turned: int, *, back: bool = False) -> None:
    """x [T,n*D] -> out [T,n*D], which may be x: `turned` heads rotate (`back`: the other way), the others stay."""
    if not runs_kernels(x):
        return plain_rotate(x, cos, sin, out, turned, back=back)
    half = cos.shape[1]
    heads = x.shape[1] // (2 * half)
    strides = x.stride(0), out.stride(0), cos.stride(0)
    _rotate[(len(x),)](x, cos, sin, out, *strides, turned, -1.0 if back else 1.0, heads, half, num_warps=1)


def plain_rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, turned: int, *, back: bool = False) -> None:
    """What `rotate` must equal."""
    T, half = cos.shape
    heads = wide(x).reshape(T, -1, 2, half)
    cos, sin = wide(cos)[:, None], wide(-sin if back else sin)[:, None]
    first, second = heads[:, :turned].unbind(2)
    both = [first * cos - second * sin, second * cos + first * sin]
    made = heads.clone()
    made[:, :turned, 0], made[:, :turned, 1] = both
    out.copy_(made.reshape(T, -1))


@triton.jit
def _rotate(x, cos, sin, out, x_row, out_row, cos_row, turned, sign, HEADS: constexpr, HALF: constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, HALF)
    c = tl.load(cos + token * cos_row + at).to(tl.float32)
    s = tl.load(sin + token * cos_row + at).to(tl.float32) * sign
    for head in range(HEADS):
        begin = head * 2 * HALF + at
        first = tl.load(x + token * x_row + begin).to(tl.float32)
        second = tl.load(x + token * x_row + begin + HALF).to(tl.float32)
        turns = head < turned
        tl.store(out + token * out_row + begin, tl.where(turns, first * c - second * s, first))
        tl.store(out + token * out_row + begin + HALF, tl.where(turns, second * c + first * s, second))

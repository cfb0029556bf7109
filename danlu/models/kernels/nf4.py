"""Four-bit weights made dense where a product wants them, in one pass: https://arxiv.org/abs/2305.14314

Shapes: O outputs, I inputs, N = O I weights in blocks of 64, each with a scale.
"""

from torch import Tensor

from danlu.models.kernels.gpu import constexpr, runs_kernels, tl, triton

BLOCK, OUTER_BLOCK = 64, 256
"""weights that share a scale; scales that share one, where they are quantized too"""
AT_ONCE = 64
"""blocks of a program"""


def fits_kernel(codes: Tensor, out: Tensor) -> bool:
    """Whether the kernel can fill this: no block may go over the end of a row."""
    return runs_kernels(codes) and out.shape[-1] % BLOCK == 0 and out.stride(-1) == 1


def nf4_dense(codes: Tensor, scales: Tensor, out: Tensor, levels: Tensor, known: tuple[Tensor, ...] = ()) -> None:
    """codes uint8 [N/2], the first of two in a byte's high half -> out [O,I], whose rows may lie apart.

    scales [N/64] fp32; or uint8 with `known`: what their codes stand for [256], the scales of each 256 of them, and
    what is added to all. levels [16] fp32: what a weight's codes stand for.
    """
    blocks = out.numel() // BLOCK
    values, outer, mean = known or (levels, levels, levels)
    _dense[(triton.cdiv(blocks, AT_ONCE),)](
        codes, scales, values, outer, mean, levels, out, out.stride(0), blocks, out.shape[1] // BLOCK,
        BLOCK, OUTER_BLOCK, AT_ONCE, bool(known), num_warps=4,
    )  # fmt: skip


@triton.jit
def _dense(
    codes, scales, values, outer, mean, levels, out, row_size, blocks, per_row,
    BLOCK: constexpr, OUTER_BLOCK: constexpr, AT_ONCE: constexpr, DOUBLE: constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * AT_ONCE + tl.arange(0, AT_ONCE)
    real = block < blocks
    scale = tl.load(scales + block, mask=real, other=0)
    if DOUBLE:
        scale = tl.load(values + scale.to(tl.int32)) * tl.load(outer + block // OUTER_BLOCK, mask=real, other=0.0)
        scale += tl.load(mean)
    inside = tl.arange(0, BLOCK)[None]
    byte = tl.load(codes + (block[:, None] * BLOCK + inside) // 2, mask=real[:, None], other=0).to(tl.int32)
    level = tl.load(levels + ((byte >> (4 - 4 * (inside % 2))) & 15))
    begin = block // per_row * row_size + block % per_row * BLOCK
    value = (level * scale[:, None]).to(out.dtype.element_ty)
    tl.store(out + begin[:, None] + inside, value, mask=real[:, None])

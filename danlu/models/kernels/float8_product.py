"""Products with a frozen weight in 8-bit floats, which GPUs multiply since Hopper: https://arxiv.org/abs/2209.05433

Each row of what is multiplied is scaled to the largest 8-bit float. The weight's own scales stand at its rows, so on
the way back they go to the columns of the gradient, and the same bytes serve both ways; they are held twice, once
transposed, as these products want both sides along the summed dimension. T tokens, I inputs, O outputs.
"""

import torch
from torch import Tensor

from danlu.models.kernels.gpu import block_of, constexpr, runs_kernels, tl, triton

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
WIDEST = 32768
"""numbers of a row that a program holds; longer rows are read twice"""


class Float8Weight:
    """weight [O,I] float8_e4m3fn and scale [O,1] fp32: W = weight * scale."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self.weight, self.scale = weight, scale
        self.transposed = weight.view(torch.uint8).T.contiguous().view(FLOAT8)
        self.ones = torch.ones(1, weight.shape[1], dtype=torch.float32, device=weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """x [T,I] -> x W^T [T,O]."""
        rows, scales = quantize_rows(x)
        return torch._scaled_mm(rows, self.weight.T, scales, self.scale.T, out_dtype=x.dtype, use_fast_accum=True)

    def backward(self, d_y: Tensor) -> Tensor:
        """d y [T,O] -> d y W [T,I]."""
        rows, scales = quantize_rows(d_y, self.scale)
        return torch._scaled_mm(rows, self.transposed.T, scales, self.ones, out_dtype=d_y.dtype, use_fast_accum=True)


def multiplies_float8(device: torch.device) -> bool:
    """Whether a GPU has such products, with a scale for each row."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def quantize_rows(x: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x [T,N], times `columns` [N,1] if given -> rows [T,N] float8 and their scales [T,1] fp32."""
    if not runs_kernels(x):
        return plain_quantize_rows(x, columns)
    T, N = x.shape
    rows = torch.empty(T, N, dtype=FLOAT8, device=x.device)
    scales = torch.empty(T, 1, dtype=torch.float32, device=x.device)
    factors = scales if columns is None else columns
    block = min(WIDEST, block_of(N))
    warps = min(16, max(1, block // 1024))
    _quantize[(T,)](x, factors, rows, scales, x.stride(0), N, LARGEST, block, columns is not None, num_warps=warps)
    return rows, scales


def plain_quantize_rows(x: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What `quantize_rows` must equal."""
    values = x.float() if columns is None else x.float() * columns.T
    scales = values.abs().amax(-1, keepdim=True).clamp_(min=1e-12) / LARGEST
    return (values / scales).clamp_(-LARGEST, LARGEST).to(FLOAT8), scales


@triton.jit
def _quantize(x, columns, rows, scales, x_row, N: constexpr, largest, BLOCK: constexpr, BY_COLUMN: constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    top = tl.zeros((BLOCK,), tl.float32)
    value = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, N, BLOCK):
        value = _scaled(x + row * x_row, columns, begin + at, N, BY_COLUMN)
        top = tl.maximum(top, tl.abs(value))
    scale = tl.maximum(tl.max(top), 1e-12) / largest
    tl.store(scales + row, scale)
    for begin in range(0, N, BLOCK):
        if N > BLOCK:  # else all of it is still at hand
            value = _scaled(x + row * x_row, columns, begin + at, N, BY_COLUMN)
        code = tl.minimum(tl.maximum(value / scale, -largest), largest)
        tl.store(rows + row * N + begin + at, code.to(rows.dtype.element_ty), mask=begin + at < N)


@triton.jit
def _scaled(row, columns, at, N: constexpr, BY_COLUMN: constexpr):
    value = tl.load(row + at, mask=at < N, other=0.0).to(tl.float32)
    if BY_COLUMN:
        value *= tl.load(columns + at, mask=at < N, other=0.0)
    return value

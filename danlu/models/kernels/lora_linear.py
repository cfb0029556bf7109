"""A frozen linear plus its LoRA in one autograd node: no separate adds, nothing saved but the input and `x A^T`.

y = x W^T + b + s (x A^T) B^T. Shapes: T tokens, I inputs, O outputs, R rank.
"""

import torch
from torch import Tensor


class LoRALinear(torch.autograd.Function):
    """x [...,I], weight [O,I] frozen, bias [O] or None frozen, A [R,I], B [O,R], s a float -> y [...,O]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        """Base product, then the low-rank product added in place."""
        x_TI = x.reshape(-1, x.shape[-1])
        low_TR = x_TI @ a.T
        y_TO = torch.mm(x_TI, weight.T) if bias is None else torch.addmm(bias, x_TI, weight.T)
        y_TO.addmm_(low_TR, b.T, alpha=scale)
        ctx.save_for_backward(x_TI, weight, a, b, low_TR)
        ctx.scale, ctx.shape = scale, x.shape
        return y_TO.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx, d_y: Tensor):  # type: ignore[override]
        """Gradients of x, A and B."""
        x_TI, weight, a, b, low_TR = ctx.saved_tensors
        d_TO = d_y.reshape(-1, d_y.shape[-1])
        d_low_TR = (d_TO @ b).mul_(ctx.scale)
        d_b = torch.mm(d_TO.T, low_TR).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        d_a = torch.mm(d_low_TR.T, x_TI) if ctx.needs_input_grad[3] else None
        d_x = torch.mm(d_TO, weight).addmm_(d_low_TR, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return d_x, None, None, d_a, d_b, None


def plain_lora_linear(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """What `LoRALinear` must equal."""
    return torch.nn.functional.linear(x, weight, bias) + scale * (x @ a.T) @ b.T

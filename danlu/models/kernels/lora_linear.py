"""A frozen linear plus its LoRA in one autograd node: no separate adds, nothing saved but the input and `x A^T`.

y = x W^T + b + s (x A^T) B^T. Shapes: T tokens, I inputs, O outputs, R rank.
"""

import torch
from torch import Tensor

from danlu.models.dense import dense_weight
from danlu.models.quantized_linear import QuantizedLinear

Base = Tensor | QuantizedLinear


class LoRALinear(torch.autograd.Function):
    """x [...,I], weight [O,I] frozen, bias [O] or None frozen, A [R,I], B [O,R], s a float -> y [...,O].

    A weight given as its quantized layer is made dense on the way forward and again on the way back; nothing is kept.
    """

    @staticmethod
    def forward(ctx, x: Tensor, base: Base, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        """Base product, then the low-rank product added in place."""
        x_TI = x.reshape(-1, x.shape[-1])
        low_TR = x_TI @ a.T
        weight = dense_weight(base) if isinstance(base, QuantizedLinear) else base
        y_TO = torch.mm(x_TI, weight.T) if bias is None else torch.addmm(bias, x_TI, weight.T)
        y_TO.addmm_(low_TR, b.T, alpha=scale)
        layer, kept = (base, None) if isinstance(base, QuantizedLinear) else (None, weight)
        ctx.save_for_backward(x_TI, kept, a, b, low_TR)
        ctx.layer, ctx.scale, ctx.shape = layer, scale, x.shape
        return y_TO.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx, d_y: Tensor):  # type: ignore[override]
        """Gradients of x, A and B."""
        x_TI, kept, a, b, low_TR = ctx.saved_tensors
        d_TO = d_y.reshape(-1, d_y.shape[-1])
        d_low_TR = (d_TO @ b).mul_(ctx.scale)
        d_b = torch.mm(d_TO.T, low_TR).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        d_a = torch.mm(d_low_TR.T, x_TI) if ctx.needs_input_grad[3] else None
        d_x = None
        if ctx.needs_input_grad[0]:
            weight = dense_weight(ctx.layer) if kept is None else kept
            d_x = torch.mm(d_TO, weight).addmm_(d_low_TR, a).view(ctx.shape)
        return d_x, None, None, d_a, d_b, None


def plain_lora_linear(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """What `LoRALinear` must equal."""
    return torch.nn.functional.linear(x, weight, bias) + scale * (x @ a.T) @ b.T

"""Weights rounded to few numbers on the way forward, and learning as if they were not: https://arxiv.org/abs/1712.05877"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def fake_quantize(weight: Tensor, bits: int, group_size: int | None) -> Tensor:
    """[O,I] rounded to whole multiples of a scale, at most 2^(bits-1) - 1 of them to either side.

    Each `group_size` weights of a row (None: all of it) share the scale, which takes their largest to the end. Rounding
    what is rounded changes nothing.
    """
    largest = 2 ** (bits - 1) - 1
    groups = weight.detach().float().reshape(-1, group_size or weight.shape[1])
    scale = groups.abs().amax(1, keepdim=True) / largest
    scale = torch.where(scale > 0, scale, 1.0)
    return (groups / scale).round_().clamp_(-largest, largest).mul_(scale).view_as(weight).to(weight.dtype)


class RoundedProduct(torch.autograd.Function):
    """x Q(W)^T + b. The gradient goes straight through Q to W; Q(W) is made again on the way back, not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, bits: int, group: int | None) -> Tensor:  # type: ignore[override]
        """x [...,I], weight [O,I], bias [O] or None -> [...,O]."""
        ctx.save_for_backward(x, weight)
        ctx.bits, ctx.group = bits, group
        return nn.functional.linear(x, fake_quantize(weight, bits, group), bias)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor):  # type: ignore[override]
        """Gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        d_TO, x_TI = d_y.reshape(-1, d_y.shape[-1]), x.reshape(-1, x.shape[-1])
        d_x = d_y @ fake_quantize(weight, ctx.bits, ctx.group) if ctx.needs_input_grad[0] else None
        d_weight = d_TO.T @ x_TI if ctx.needs_input_grad[1] else None
        return d_x, d_weight, d_TO.sum(0) if ctx.needs_input_grad[2] else None, None, None


def round_weights(layer: nn.Linear, bits: int, group_size: int | None) -> None:
    """From now on, the layer multiplies by its rounded weight."""

    def forward(layer: nn.Linear, input: Tensor) -> Tensor:
        return RoundedProduct.apply(input, layer.weight, layer.bias, bits, group_size)  # type: ignore[no-any-return]

    layer.forward = MethodType(forward, layer)

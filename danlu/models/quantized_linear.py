"""A frozen linear layer whose weight is stored in fewer bits than it is multiplied in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class QuantizedLinear(nn.Linear):
    """An nn.Linear to all who look; its `weight` holds codes, its buffers what turns them back into numbers.

    Codes are integers (fp8 is kept as bytes too), so that nobody who casts floating-point weights touches them: not the
    masters, not peft, not `.to(dtype)`, which only changes what `dense` gives. Of a layer on the meta device it is the
    empty shell.
    """

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.compute_dtype = layer.weight.dtype
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        packed = self.pack(layer.weight.detach())
        self.weight = nn.Parameter(packed.pop("weight"), requires_grad=False)
        for name, value in packed.items():
            self.register_buffer(name, value)

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """[O,I] of any floating dtype -> `weight`, the integer codes, and every buffer by name."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """[O,I] in the compute dtype, rounded once."""
        raise NotImplementedError

    def dense_into(self, out: Tensor) -> None:
        """The same, into out [O,I], whose rows may lie apart."""
        out.copy_(self.dense())

    def forward(self, input: Tensor) -> Tensor:
        """[...,I] -> [...,O]."""
        return DenseProduct.apply(input, self)  # type: ignore[no-any-return]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in kept.items():  # scales move with the layer, and stay as exact as they are
            setattr(self, name, buffer.to(getattr(self, name).device))
        self.compute_dtype = fn(torch.empty(0, dtype=self.compute_dtype)).dtype
        return self

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"{super().extra_repr()}, compute_dtype={self.compute_dtype}"


class DenseProduct(torch.autograd.Function):
    """x W^T + b over a quantized layer; W is made dense again on the way back, so nothing is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:  # type: ignore[override]
        """x [...,I] -> [...,O]."""
        ctx.layer = layer
        return nn.functional.linear(x, layer.dense(), layer.bias)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor):  # type: ignore[override]
        """The gradient of x."""
        return d_y @ ctx.layer.dense(), None


def quantized_layers(module: nn.Module) -> list[QuantizedLinear]:
    """Every quantized layer of a module."""
    return [layer for layer in module.modules() if isinstance(layer, QuantizedLinear)]


def packed_weights(module: nn.Module) -> int:
    """How many more weights a module holds than its parameters have elements: two 4-bit ones share a byte."""
    return sum(layer.in_features * layer.out_features - layer.weight.numel() for layer in quantized_layers(module))

"""Several linears of one input as one product. They learn themselves, or the ranks of their LoRA are folded into it.

y = [x, s x A^T] [W | B]^T + b: W stacks the weights, A the first matrices, and B holds each second matrix in the
columns of its first. The same matrix, not transposed, gives the gradients of x and of x A^T at once. Where W learns,
its gradient is one product too.

Shapes: T tokens, I inputs, O outputs of all, R ranks of all, P: R filled up to whole tiles. An input is given as
[T, I + P]: whatever makes it writes the first I columns, `forward` the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from danlu.models.dense import dense_weight_into
from danlu.models.kernels.float8_product import FLOAT8, Float8Weight, multiplies_float8
from danlu.models.quantized_linear import QuantizedLinear
from danlu.models.quantizers.fp8 import FP8Linear

TILE = 64
"""columns: a product whose inner size is no multiple of this runs at half its speed"""


@dataclass(slots=True, frozen=True)
class Part:
    """One linear of a group: its layer, and the rows and rank columns that are its own."""

    layer: nn.Module
    rows: slice
    ranks: slice

    @property
    def base(self) -> nn.Linear:
        """The linear itself."""
        return plain_of(self.layer)

    @property
    def matrices(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A [r,I] and B [o,r]."""
        assert isinstance(self.layer, LoraLayer)
        [name] = self.layer.active_adapters
        return self.layer.lora_A[name].weight, self.layer.lora_B[name].weight  # type: ignore[return-value]


class LinearGroup:
    """The layers' own weights become views of the group's, so that nothing is held twice and updates need no copy."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.parts: list[Part] = []
        self.outputs = self.ranks = 0
        for layer in layers:
            rows, ranks = self.outputs, self.ranks
            self.outputs += plain_of(layer).out_features
            self.ranks += rank_of(layer)
            self.parts.append(Part(layer, slice(rows, self.outputs), slice(ranks, self.ranks)))
        self.inputs = self.parts[0].base.in_features
        self.width = self.inputs + -(-self.ranks // TILE) * TILE
        self.adapters = [part for part in self.parts if part.ranks.start < part.ranks.stop]
        states = {part.base.weight.requires_grad for part in self.parts}
        assert len(states) == 1, "the linears of a group learn together, or not at all"
        self.learns = states.pop()
        scales = {scale_of(part.layer) for part in self.adapters}
        assert len(scales) <= 1, "one scale for all layers of a group"
        self.scale: float = scales.pop() if scales else 1.0
        self.quantized = any(isinstance(part.base, QuantizedLinear) for part in self.parts)
        self._lay_together()

    @property
    def learnables(self) -> list[nn.Parameter]:
        """The weights and biases of each layer, or A and B of each that has them."""
        if not self.learns:
            return [matrix for part in self.adapters for matrix in part.matrices]
        return [each for part in self.parts for each in part.base.parameters()]

    def _lay_together(self) -> None:
        like = self.parts[0].base
        self.dtype = like.compute_dtype if isinstance(like, QuantizedLinear) else like.weight.dtype
        self.device = like.weight.device
        dtype, device = self.dtype, self.device
        biases = [part.base.bias for part in self.parts]  # None where a layer has none
        self.bias = None if all(bias is None for bias in biases) else torch.zeros(self.outputs, dtype=dtype).to(device)
        self.a = torch.zeros(self.width - self.inputs, self.inputs, dtype=dtype, device=device)
        self._weight = None if self.quantized else torch.zeros(self.outputs, self.width, dtype=dtype, device=device)
        self.float8 = self._float8() if self.quantized else None
        self.apart = dtype not in (torch.bfloat16, torch.float16)
        """whether B is gathered before each use: what an optimiser updates itself must lie in one piece"""
        self.b = torch.zeros(self.outputs, self.width - self.inputs, dtype=dtype, device=device)
        if self._weight is not None:
            self.b = self._weight[:, self.inputs :]
        with torch.no_grad():
            for part, bias in zip(self.parts, biases, strict=True):
                if self.bias is not None and bias is not None:
                    bias.data = self.bias[part.rows].copy_(bias)
                if self._weight is not None:
                    part.base.weight.data = self._weight[part.rows, : self.inputs].copy_(part.base.weight)
            for part in self.adapters:
                a, b = part.matrices
                a.data = self.a[part.ranks].copy_(a)
                if not self.apart:
                    b.data = self.b[part.rows, part.ranks].copy_(b)

    def empty_input(self, num_tokens: int) -> Tensor:
        """[T, I + P], to be filled."""
        return torch.empty(num_tokens, self.width, dtype=self.dtype, device=self.device)

    @property
    def weight(self) -> Tensor:
        """[W | B], [O, I + P]; of quantized layers, made dense for this one use."""
        if self._weight is not None:
            return self._weight
        weight = torch.empty(self.outputs, self.width, dtype=self.dtype, device=self.device)
        for part in self.parts:
            dense_weight_into(part.base, weight[part.rows, : self.inputs])
        weight[:, self.inputs :] = self.b
        return weight

    def _float8(self) -> Float8Weight | None:
        """The bytes of all layers as one matrix, where they are 8-bit floats and the GPU multiplies them."""
        bases = [part.base for part in self.parts if isinstance(part.base, FP8Linear)]
        if len(bases) < len(self.parts) or not multiplies_float8(self.device):
            return None
        codes = torch.cat([base.weight.data for base in bases])
        for part, base in zip(self.parts, bases, strict=True):
            base.weight.data = codes[part.rows]
        return Float8Weight(codes.view(FLOAT8), torch.cat([base.scale for base in bases]))

    def forward(self, x: Tensor, *, plus: Tensor | None = None, adapted: bool = True) -> Tensor:
        """x [T, I + P] -> [T,O], added to `plus` [T,O] if given. Fills the last columns of x."""
        low = x[:, self.inputs :]
        if adapted and self.apart:
            for part in self.adapters:
                self.b[part.rows, part.ranks] = part.matrices[1].detach()
        if adapted:
            torch.addmm(low, x[:, : self.inputs], self.a.T, beta=0, alpha=self.scale, out=low)
        else:
            low.zero_()
        if self.float8 is None:
            added = self.bias if plus is None else plus if self.bias is None else plus + self.bias
            return x @ self.weight.T if added is None else torch.addmm(added, x, self.weight.T)
        y = self.float8.forward(x[:, : self.inputs])
        if self.ranks:
            y.addmm_(low, self.b.T)
        for added in (self.bias, plus):
            y = y if added is None else y.add_(added)
        return y

    def backward(
        self, d_y: Tensor, x: Tensor, *, adapted: bool = True, whole: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """d x [T,I], d (x A^T) [T,P], both in one buffer, and the gradients of `learnables`.

        Not `whole`: d x lacks what comes through the adapters, scale * d (x A^T) A, which the caller adds.
        """
        d_in, d_low = self.input_gradient(d_y)
        if whole and self.ranks and adapted and not self.learns:
            d_in.addmm_(d_low, self.a, alpha=self.scale)
        return d_in, d_low, self.gradients(d_y, x, d_low, adapted=adapted)

    def input_gradient(self, d_y: Tensor) -> tuple[Tensor, Tensor]:
        """d x [T,I] without what comes through the adapters, and d (x A^T) [T,P]."""
        if self.float8 is not None:
            return self.float8.backward(d_y), d_y @ self.b
        d_x = d_y @ self.weight
        return d_x[:, : self.inputs], d_x[:, self.inputs :]

    def gradients(self, d_y: Tensor, x: Tensor, d_low: Tensor, *, adapted: bool = True) -> list[Tensor | None]:
        """Those of `learnables`; x [T, I + P] as `forward` has filled it."""
        if self.learns:
            return self._gradients(d_y, x)
        if not (self.ranks and adapted):
            return [None] * len(self.learnables)
        d_a = torch.addmm(self.a, d_low.T, x[:, : self.inputs], beta=0, alpha=self.scale)
        d_b = d_y.T @ x[:, self.inputs :]  # of all layers by all ranks: one pass over d_y, and a diagonal that is used
        return [d for one in self.adapters for d in (d_a[one.ranks], d_b[one.rows, one.ranks])]

    def _gradients(self, d_y: Tensor, x: Tensor) -> list[Tensor | None]:
        """Of the weights and biases: one product for all."""
        weight = d_y.T @ x
        bias = None if self.bias is None else d_y.sum(0)
        found: list[Tensor | None] = []
        for part in self.parts:
            found.append(weight[part.rows])
            if bias is not None and part.base.bias is not None:
                found.append(bias[part.rows])
        return found

    @cached_property
    def layers(self) -> list[LoraLayer]:
        """Those with an adapter."""
        return [part.layer for part in self.adapters if isinstance(part.layer, LoraLayer)]

    @property
    def adapted(self) -> bool | None:
        """Whether the adapters are on; None where the layers are not alike, or not as they were laid together."""
        states = {not layer.disable_adapters for layer in self.layers}
        if any(layer.merged for layer in self.layers) or len(states) > 1 or not self.in_place:
            return None
        return states.pop() if states else False

    @property
    def in_place(self) -> bool:
        """Whether the layers' weights are still views of the group's, and their adapter is that of then."""
        if any(name not in layer.lora_A for layer in self.layers for name in layer.active_adapters):
            return False
        if self.adapters and self.adapters[0].matrices[0].data_ptr() != self.a.data_ptr():
            return False
        return self._weight is None or self.parts[0].base.weight.data_ptr() == self._weight.data_ptr()


def plain_of(layer: nn.Module) -> nn.Linear:
    """The linear of a layer, with or without an adapter."""
    base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    assert isinstance(base, nn.Linear)
    return base


def rank_of(layer: nn.Module) -> int:
    """r of a layer's one adapter; 0 without one."""
    return layer.r[layer.active_adapters[0]] if isinstance(layer, LoraLayer) else 0


def scale_of(layer: nn.Module) -> float:
    """What the product of both matrices is multiplied by."""
    assert isinstance(layer, LoraLayer)
    return layer.scaling[layer.active_adapters[0]]

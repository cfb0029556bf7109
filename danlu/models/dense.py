"""The weight that a linear layer multiplies by, however it is stored."""

import torch
from torch import Tensor, nn

from danlu.models.quantized_linear import QuantizedLinear


def dense_weight(linear: nn.Module) -> Tensor:
    """[O,I] in the compute dtype: a plain layer's own weight, or a quantized one's made dense anew at every call."""
    return linear.dense() if isinstance(linear, QuantizedLinear) else linear.weight  # type: ignore[return-value]


@torch.no_grad()
def dense_weight_into(linear: nn.Linear, out: Tensor) -> None:
    """The same, into out [O,I], whose rows may lie apart."""
    if isinstance(linear, QuantizedLinear):
        linear.dense_into(out)
    else:
        out.copy_(linear.weight)

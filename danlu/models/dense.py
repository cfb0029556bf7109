"""The weight that a linear layer multiplies by, however it is stored."""

from torch import Tensor, nn

from danlu.models.quantized_linear import QuantizedLinear


def dense_weight(linear: nn.Module) -> Tensor:
    """[O,I] in the compute dtype: a plain layer's own weight, or a quantized one's made dense anew at every call."""
    return linear.dense() if isinstance(linear, QuantizedLinear) else linear.weight  # type: ignore[return-value]

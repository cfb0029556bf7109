"""What every quantizer answers: the layer that stores a linear layer's weight in its way."""

from torch import nn

from danlu.core.parts import Folder, Part
from danlu.models.quantized_linear import QuantizedLinear


class Quantizer(Part):
    """How the frozen weights of a model's blocks are stored."""

    def layer(self, linear: nn.Linear) -> QuantizedLinear:
        """The same layer, quantized."""
        raise NotImplementedError


quantizers = Folder("danlu.models.quantizers", Quantizer)

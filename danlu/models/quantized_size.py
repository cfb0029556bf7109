"""How much memory a weight takes in each way that frozen weights can be stored."""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from danlu.models.blocks import blocks_of

BYTES_PER_WEIGHT = {
    "nf4": 0.5 + 1 / 64 + 4 / (64 * 256),  # four bits, a byte for 64 weights, a float for 256 of those
    "int8": 1.0,
    "fp8": 1.0,
}
"""by the quantizer's name; int8 and fp8 have a float for each row besides, which is nothing"""


def quantizable(model: nn.Module) -> list[Tensor]:
    """The frozen matrices that a quantizer stores: those of linear layers inside the blocks."""
    _, blocks = blocks_of(model)
    layers = [module for module in blocks.modules() if isinstance(module, nn.Linear | Conv1D)]
    return [layer.weight for layer in layers if not layer.weight.requires_grad]

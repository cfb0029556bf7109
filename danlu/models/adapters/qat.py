"""Quantization-aware training: every weight learns, and those of the blocks are multiplied as few bits hold them."""

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.core.errors import UserError
from danlu.models.adapters.full import Full
from danlu.models.blocks import blocks_of
from danlu.models.fake_quantize import fake_quantize, round_weights
from danlu.models.save import save_weights


class QAT(Full):
    """Every weight learns, rounded to 4 or 8 bits wherever it is multiplied in a block; what is saved is rounded."""

    bits: Literal[4, 8] = 4
    """whole numbers from -7 to 7, or from -127 to 127"""
    group_size: PositiveInt | None = 32
    """weights of a row that share a scale; null is the whole row"""

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Mark every weight, and round those of the linear layers in the blocks."""
        learning = super().apply(model)
        layers = rounded_layers(model)
        if not layers:
            raise UserError(f"adapter: qat rounds linear layers, and {type(model).__name__} has none in its blocks")
        for name, layer in layers.items():
            if layer.in_features % (self.group_size or 1):
                raise UserError(
                    f"adapter.group_size: {self.group_size} does not divide the {layer.in_features:,} inputs of {name}"
                )
            round_weights(layer, self.bits, self.group_size)
        return learning

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the whole model with the weights that it multiplied by."""
        assert isinstance(model, PreTrainedModel)
        newest = model.state_dict() | (state or {})
        rounded = {}
        for name, layer in rounded_layers(model).items():
            # of what the layer saw, which is the master in the model's dtype
            seen = newest[f"{name}.weight"].to(layer.weight.dtype)
            rounded[f"{name}.weight"] = fake_quantize(seen, self.bits, self.group_size)
        save_weights(model, folder, (state or {}) | rounded)


def rounded_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers of the blocks, by path."""
    path, blocks = blocks_of(model)
    linear = blocks.named_modules(prefix=path)
    return {name: layer for name, layer in linear if isinstance(layer, nn.Linear)}

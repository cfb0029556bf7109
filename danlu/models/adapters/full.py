"""Every weight learns."""

from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.core.errors import UserError
from danlu.models.adapters.base import Adapter
from danlu.models.save import save_weights


class Full(Adapter):
    """Every weight learns."""

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Mark every weight."""
        refuse_quantized(model, "full")
        return model.requires_grad_(True)

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the whole model."""
        save_weights(model, folder, state)


def refuse_quantized(model: PreTrainedModel, name: str) -> None:
    """Quantized weights have no gradient."""
    if model.config.to_dict().get("quantization_config"):
        raise UserError(f"adapter: {name} learns the weights themselves, and these are quantized; use `adapter: lora`")

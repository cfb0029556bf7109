"""What every adapter answers: which weights learn, at what rate, and what is written at the end."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.core.parts import Part
from danlu.models.quantized_linear import packed_weights


class Adapter(Part):
    """Which weights of a model learn."""

    @property
    def needs_whole_weights(self) -> str | None:
        """Why it cannot work beside quantized weights; None where it can."""
        return "learns the weights themselves"

    @property
    def lies_beside(self) -> bool:
        """Whether the model is still there without it."""
        return False

    def check(self, device: torch.device) -> None:
        """Raise a `SetupError` where it cannot work."""

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Mark the weights that learn, and return the model, possibly wrapped."""
        raise NotImplementedError

    def sketch(self, model: PreTrainedModel) -> nn.Module:
        """The same to a model without weights, from whose shapes memory is planned."""
        return self.apply(model)

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write what was learned as transformers or peft reads it; `state` holds fp32 masters by parameter name."""
        raise NotImplementedError

    def lr_scales(self, names: Iterable[str]) -> dict[str, float]:
        """What the learning rate is multiplied by for each of these parameters."""
        return dict.fromkeys(names, 1.0)


def trainable_report(model: nn.Module) -> str:
    """`trainable params: 4,884,480 || all params: 139,399,488 || trainable%: 3.5039`"""
    learning = sum(num_weights(parameter) for parameter in model.parameters() if parameter.requires_grad)
    total = sum(num_weights(parameter) for parameter in model.parameters()) + packed_weights(model)
    return f"trainable params: {learning:,} || all params: {total:,} || trainable%: {100 * learning / total:.4f}"


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; bitsandbytes packs two 4-bit ones into each byte."""
    packed = 2 * parameter.element_size() if type(parameter).__name__ == "Params4bit" else 1
    return parameter.numel() * packed

"""Quantize the linear layers of a model's blocks while it is read: one weight at a time, never a whole copy of all."""

import json
from pathlib import Path
from typing import Annotated, Any

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from danlu.core.config import validate
from danlu.core.errors import UserError
from danlu.core.files import write_json
from danlu.core.parts import Config
from danlu.models.blocks import blocks_of
from danlu.models.quantized_linear import QuantizedLinear
from danlu.models.quantizers.base import Quantizer, quantizers

METHOD = "danlu"
FILE = "quantizer.json"
"""lies in an adapter's folder and says how the weights were stored that it learned beside"""


class Quantization(QuantizationConfigMixin):
    """What transformers is told when it loads a model, and what the model's configuration says from then on."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.quantizer = quantizer

    def to_dict(self) -> dict[str, Any]:
        """The quantizer as a recipe would name it."""
        return {"quant_method": METHOD, "name": quantizers.name_of(self.quantizer), **self.quantizer.model_dump()}


class QuantizeOnLoad(HfQuantizer):
    """Puts quantized layers into the empty model, and packs each weight as it comes."""

    @property
    def is_trainable(self) -> bool:  # type: ignore[override]
        """An adapter beside it learns."""
        return True

    def is_serializable(self) -> bool:  # type: ignore[override]
        """Whole weights are what Danlu writes."""
        return False

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        assert isinstance(self.quantization_config, Quantization)
        quantizer = self.quantization_config.quantizer
        for layer, shell in quantize_blocks(model, quantizer):
            shell.weight = layer.weight  # until it is packed: a weight is read in the dtype of its empty place

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        """Whether it is the weight of a quantized layer."""
        path, _, name = param_name.rpartition(".")
        return name == "weight" and isinstance(model.get_submodule(path), QuantizedLinear)

    def param_element_size(self, model: PreTrainedModel, param_name: str, param: Tensor) -> float:
        """Bytes for each weight."""
        if not self.param_needs_quantization(model, param_name):
            return super().param_element_size(model, param_name, param)
        packed = quantized_layer(model, param_name).pack(param)
        return sum(value.nbytes for value in packed.values()) / param.numel()

    def get_quantize_ops(self) -> ConversionOps:
        """What becomes of a weight."""
        return Pack()


def quantize_blocks(model: PreTrainedModel, quantizer: Quantizer) -> list[tuple[nn.Linear, QuantizedLinear]]:
    """Put a quantized layer into the place of each linear one in a model's blocks; returns both of each."""
    path, blocks = blocks_of(model)
    linear = [(name, layer) for name, layer in blocks.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UserError(f"model.quantizer: {type(model).__name__} has no linear layers in its blocks to quantize")
    pairs = [(layer, quantizer.layer(layer)) for _, layer in linear]
    for (name, _), (_, shell) in zip(linear, pairs, strict=True):
        model.set_submodule(f"{path}.{name}", shell)
    return pairs


class Pack(ConversionOps):
    """A weight as it was read -> the codes and scales of its layer, by name."""

    def convert(  # type: ignore[override]
        self, input_dict: dict[str, Any], model: PreTrainedModel, **kwargs: Any
    ) -> dict[str, Tensor]:
        """One weight in, everything its layer keeps out."""
        [(name, value)] = input_dict.items()
        layer = quantized_layer(model, name)
        layer._is_hf_initialized = True  # type: ignore[assignment]
        packed = layer.pack(value[0] if isinstance(value, list) else value)
        return {f"{name.rpartition('.')[0]}.{part}": content for part, content in packed.items()}


register_quantization_config(METHOD)(Quantization)
register_quantizer(METHOD)(QuantizeOnLoad)


def quantized_layer(model: nn.Module, weight: str) -> QuantizedLinear:
    """The layer that a weight belongs to."""
    layer = model.get_submodule(weight.rpartition(".")[0])
    assert isinstance(layer, QuantizedLinear)
    return layer


class Stored(Config):
    """What `quantizer.json` holds."""

    quantizer: Annotated[Quantizer, quantizers]
    """how the weights are stored"""


def write_quantizer(model: PeftModel, folder: Path) -> None:
    """Note in an adapter's folder how the weights beside it are stored, if Danlu quantized them."""
    found = getattr(model.get_base_model().config, "quantization_config", None)
    if isinstance(found, Quantization):
        write_json(folder / FILE, Stored(quantizer=found.quantizer).model_dump(mode="json"))


def read_quantizer(folder: Path) -> Quantizer | None:
    """How the weights were stored that an adapter learned beside; None for whole ones."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    return validate(Stored, tree, origin=str(path)).quantizer

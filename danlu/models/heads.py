"""A model's output layer: hidden states to logits, found by structure."""

from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.core.errors import UserError
from danlu.models.kernels.linear_logprob import Shape


@dataclass(frozen=True)
class Head:
    """The last product of a model, and what is done to its logits."""

    module: nn.Module
    shape: Shape

    @property
    def weight(self) -> Tensor:
        """[V,H]; with LoRA on the layer, the sum of both, through which gradients flow."""
        layer = self.layer
        if not isinstance(layer, LoraLayer):
            return layer.weight  # type: ignore[return-value]
        base = layer.get_base_layer().weight
        if layer.disable_adapters or layer.merged:
            return base  # type: ignore[return-value]
        [name] = layer.active_adapters
        return base + layer.get_delta_weight(name).to(base.dtype)  # type: ignore[attr-defined,operator]

    @property
    def bias(self) -> Tensor | None:
        """[V], where the layer has one."""
        layer = self.layer
        plain = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        return getattr(plain, "bias", None)

    def logits(self, hidden: Tensor) -> Tensor:
        """[...,H] -> [...,V]"""
        logits = nn.functional.linear(hidden, self.weight, self.bias) * self.shape.scale
        cap = self.shape.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def layer(self) -> nn.Module:
        """The layer in use: peft may keep a learning copy beside the original."""
        if not isinstance(self.module, ModulesToSaveWrapper):
            return self.module
        if self.module.disable_adapters:
            return self.module.original_module
        return self.module.modules_to_save[self.module.active_adapters[0]]  # type: ignore[index]


def is_product(layer: LoraLayer) -> bool:
    """Whether a layer with LoRA is one product with the sum of both weights."""
    plain = all(isinstance(dropout, nn.Identity) for dropout in layer.lora_dropout.values())
    return plain and not layer.lora_variant and not any(layer.lora_bias.values())


def head_of(model: PreTrainedModel) -> Head:
    """The output layer of a model, with the scaling and capping that its configuration asks for."""
    config = model.config.get_text_config().to_dict()
    scale = config.get("logit_scale") or 1.0
    if config.get("logits_scaling"):
        scale = 1.0 / config["logits_scaling"]
    module = model.get_output_embeddings()
    assert isinstance(module, nn.Module), f"{type(model).__name__} has no output layer"
    if isinstance(module, LoraLayer) and not is_product(module):
        raise UserError("an adapter on the output layer can be plain LoRA only, without dropout, bias or DoRA")
    return Head(module, Shape(scale=scale, softcap=config.get("final_logit_softcapping")))

"""Write models and adapters as plain transformers and peft read them, and merge an adapter into its model."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from danlu.core.files import write_json
from danlu.models.quiet import without_bars

SHARD = "5GB"


def save_weights(model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Safetensors in shards of at most 5 GB and the configuration, in the model's dtype.

    `state` holds newer values of some or all parameters, such as fp32 masters; they are rounded once, here.
    """
    assert isinstance(model, PreTrainedModel)
    state = {name: value.to(model.state_dict()[name].dtype) for name, value in (state or {}).items()}
    with without_bars():
        model.save_pretrained(folder, state_dict={**model.state_dict(), **state}, max_shard_size=SHARD)


def save_adapter(model: PeftModel, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """adapter_model.safetensors and adapter_config.json, which names the base model."""
    # without False, peft asks the hub whether the base model's vocabulary was another
    model.save_pretrained(str(folder), state_dict={**model.state_dict(), **(state or {})}, save_embedding_layers=False)


@torch.no_grad()
def merge(model: PeftModel) -> PreTrainedModel:
    """The base model with the adapter added into its weights: summed in float32 and rounded once."""
    return model.merge_and_unload(safe_merge=True)

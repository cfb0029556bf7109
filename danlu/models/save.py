"""Write models and adapters as plain transformers and peft read them, and merge an adapter into its model."""

import json
from pathlib import Path

import torch
from peft import PeftModel
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
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("ensure_weight_tying"):
        # peft drops the output layer's name here, and knows by no other that it is tied when it loads GPT-2 or Falcon
        config["modules_to_save"] = sorted({*config["modules_to_save"], "lm_head"})
        write_json(folder / "adapter_config.json", config)


@torch.no_grad()
def merge(model: PeftModel) -> PreTrainedModel:
    """The base model with the adapter added into its weights: summed in float32 and rounded once."""
    return model.merge_and_unload(safe_merge=True)

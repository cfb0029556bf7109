"""Write models, adapters and tokenizers as plain transformers and peft read them."""

import copy
import json
from pathlib import Path

from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from danlu.core.files import write_json
from danlu.models.quantized_loading import write_quantizer
from danlu.models.quiet import without_bars
from danlu.tokens.templates.base import Template, stop_ids

SHARD = "5GB"


def save_weights(model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Safetensors in shards of at most 5 GB and the configuration, in the model's dtype.

    `state` holds newer values of some or all parameters, such as fp32 masters; they are rounded once, here.
    """
    assert isinstance(model, PreTrainedModel)
    own = model.state_dict()
    # what is dealt out among processes comes whole, as it is to be written
    dealt = any(isinstance(value, DTensor) for value in own.values())
    rounded = {name: value if dealt else value.to(own[name].dtype) for name, value in (state or {}).items()}
    with without_bars():
        model.save_pretrained(folder, state_dict=newest(model, rounded), max_shard_size=SHARD)


def newest(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's state with newer values in it, under every name that a tied weight goes by."""
    values = {id(parameter): state[name] for name, parameter in model.named_parameters() if name in state}
    everywhere = model.named_parameters(remove_duplicate=False)
    return model.state_dict() | {name: values[id(each)] for name, each in everywhere if id(each) in values}


def save_adapter(model: PeftModel, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """adapter_model.safetensors and adapter_config.json, which names the base model; how that was quantized."""
    # without False, peft asks the hub whether the base model's vocabulary was another
    newer, own = newest(model, state or {}), ["default"]  # a reward model's may lie beside it
    model.save_pretrained(str(folder), state_dict=newer, save_embedding_layers=False, selected_adapters=own)
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("ensure_weight_tying"):
        # peft drops the output layer's name here, and knows by no other that it is tied when it loads GPT-2 or Falcon
        config["modules_to_save"] = sorted({*config["modules_to_save"], "lm_head"})
        write_json(folder / "adapter_config.json", config)
    write_quantizer(model, folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, template: Template, folder: Path) -> None:
    """The tokenizer with the template that was trained on, and the ids at which an answer stops."""
    saved = copy.deepcopy(tokenizer)
    saved.chat_template = template.jinja_text(tokenizer)
    saved.save_pretrained(str(folder))
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(**ids, eos_token_id=sorted(stop_ids(tokenizer, template))).save_pretrained(str(folder))

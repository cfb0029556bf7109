"""Load a model from a folder: safetensors only, no code from the folder, and never a question on the terminal."""

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from peft import PeftModel
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from danlu.core.errors import UserError
from danlu.core.parts import Config, did_you_mean
from danlu.models.classifier import is_classifier, score_of, with_score
from danlu.models.merge import merge
from danlu.models.quantized_loading import Quantization, read_quantizer
from danlu.models.quantizers.base import Quantizer, quantizers
from danlu.models.quiet import without_bars
from danlu.models.resolve import ADAPTER, MODEL, resolve
from danlu.tokens.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


class RopeScaling(Config):
    """Stretch rotary positions, so that longer texts than the model was made for can be read."""

    kind: Literal["linear", "dynamic", "yarn"] = "linear"
    """how positions are stretched"""
    factor: float = Field(default=2.0, gt=1)
    """how many times longer the texts may be"""


class ModelConfig(Config):
    """Which model a run begins from."""

    path: str
    """a folder, a run, a checkpoint, `builtin:NAME` or a hub id"""
    adapters: list[str] = []
    """adapter folders that are merged into the model first, left to right"""
    rope_scaling: RopeScaling | None = None
    """stretch rotary positions for longer texts"""
    quantizer: Annotated[Quantizer | None, quantizers] = None
    """store the weights of the blocks in fewer bits, frozen, beside which an adapter learns"""

    @model_validator(mode="after")
    def _adapters_need_whole_weights(self) -> Self:
        if self.quantizer is not None and self.adapters:
            raise ValueError("adapters are merged into whole weights, and `quantizer` leaves none; merge them first")
        return self


def build_model(
    config: ModelConfig, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> PreTrainedModel:
    """The plain language model that a run begins from, with every adapter merged into it; quantized on the device."""
    model = plain_model(config, dtype, device)
    check_writes(model, config.path)
    return model


def check_writes(model: PreTrainedModel | PeftModel, name: str | Path) -> None:
    """Refuse a reward model where words are wanted."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if score_of(base) is not None:
        raise UserError(f"{name}: this is a reward model, which writes no words; give a language model")


def build_scorer(config: ModelConfig, device: torch.device | None = None, *, scale: float = 1.0) -> PreTrainedModel:
    """A language model whose head is a new one that gives a number, or a reward model as it is."""
    return with_score(plain_model(config, device=device), scale)


def plain_model(
    config: ModelConfig, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> PreTrainedModel:
    """What is at a path, with every adapter merged into it."""
    folder = resolve(config.path)
    if config.quantizer is not None:
        if (folder / ADAPTER).is_file():
            raise UserError(
                f"model.quantizer: {config.path} is an adapter, which is merged into whole weights; merge it first, or "
                "give its base as the path and it as adapter.start"
            )
        return load_base(folder, dtype, config.rope_scaling, config.quantizer, device)
    model = load_model(folder, dtype, rope_scaling=config.rope_scaling)
    folders = [resolve(adapter) for adapter in config.adapters]
    for folder in folders:
        model = load_adapter(plain(model), folder)
    if isinstance(model, PeftModel):
        log.info("Merged %d model checkpoint(s).", len(folders) or 1)
    return plain(model)


def plain(model: nn.Module) -> PreTrainedModel:
    """The model with its adapter, if it has one, merged."""
    merged = merge(model) if isinstance(model, PeftModel) else model
    assert isinstance(merged, PreTrainedModel)
    return merged


def load_model(
    folder: Path, dtype: torch.dtype | None = None, *, rope_scaling: RopeScaling | None = None
) -> PreTrainedModel | PeftModel:
    """The model of a folder, in a dtype or as it is stored; an adapter's folder gives its base and the adapter.

    The base is quantized if that is what the adapter learned beside.
    """
    if not (folder / ADAPTER).is_file():
        return load_base(folder, dtype, rope_scaling)
    base = base_of(folder)
    if (base / ADAPTER).is_file():
        raise UserError(
            f"{folder}: its base {base} is itself an adapter; give the model as path and both in `model.adapters`"
        )
    model = load_base(base, dtype, rope_scaling, read_quantizer(folder))
    return load_adapter(with_score(model) if gives_scores(folder) else model, folder)


def gives_scores(folder: Path) -> bool:
    """Whether an adapter belongs to a reward model."""
    return read_config(folder / ADAPTER).get("task_type") == "SEQ_CLS"


def base_of(folder: Path, *, weights: bool = True) -> Path:
    """The folder of the model that an adapter belongs to."""
    base = read_config(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{folder / ADAPTER}: base_model_name_or_path is missing; write the base model's folder there")
    return resolve(base, weights=weights)


def tokenizer_folder(folder: Path) -> Path:
    """Where a model's tokenizer lies: with an adapter, or else with its base."""
    own = (folder / "tokenizer_config.json").is_file() or not (folder / ADAPTER).is_file()
    return folder if own else base_of(folder)


def tokenizer_of(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer of whatever `model.path` may name."""
    return load_tokenizer(tokenizer_folder(resolve(path)))


def load_adapter(model: PreTrainedModel, folder: Path, *, learns: bool = False) -> PeftModel:
    """A model with the adapter of a folder beside its weights, in float32."""
    config = read_config(folder / ADAPTER)
    if config.get("megatron_config"):
        raise UserError(f"{folder / ADAPTER}: megatron_config would import a package that the folder names; remove it")
    check_safetensors(folder, "adapter_model")
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=learns, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: this adapter does not fit {model.name_or_path}: {error}") from error


def load_base(
    folder: Path,
    dtype: torch.dtype | None,
    rope_scaling: RopeScaling | None = None,
    quantizer: Quantizer | None = None,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """A whole model; every weight must be in the folder. With a quantizer, each is packed as it is read."""
    check_config(folder)
    check_safetensors(folder, "model")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if rope_scaling is not None:
            stretch(config, rope_scaling)
        if quantizer is not None and "quantization_config" in config.to_dict():
            raise UserError(f"model.quantizer: {folder} holds quantized weights already; leave it out")
        with without_bars():
            kind = AutoModelForSequenceClassification if is_classifier(config) else AutoModelForCausalLM
            loaded: Any = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                quantization_config=quantizer and Quantization(quantizer),
                device_map={"": device} if quantizer is not None and device is not None else None,
            )
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: {error}") from error
    model, found = loaded
    if found["missing_keys"]:
        what = describe_missing(sorted(found["missing_keys"]), sorted(found["unexpected_keys"]))
        raise UserError(f"{folder}: {what}")
    return model


def describe_missing(missing: list[str], unexpected: list[str]) -> str:
    """Which weights are not there, and what is there instead."""
    shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    instead = f"; found instead: {', '.join(unexpected[:3])}" if unexpected else ""
    return f"{len(missing)} weights are missing ({shown}){instead}; copy the folder again, or train that part first"


def stretch(config: PreTrainedConfig, scaling: RopeScaling) -> None:
    """Write the scaling into a configuration, where it is saved with the model."""
    rope = config.to_dict().get("rope_parameters")
    if not rope or "rope_theta" not in rope:
        raise UserError(f"model.rope_scaling: {config.model_type} has no single rotary embedding to stretch")
    length = config.max_position_embeddings
    config.rope_parameters = {**rope, "rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "yarn":
        config.rope_parameters["original_max_position_embeddings"] = length
    if scaling.kind != "dynamic":  # dynamic takes this for the length at which it begins to stretch
        config.max_position_embeddings = int(length * scaling.factor)


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file that should hold one object."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def check_config(folder: Path) -> None:
    """Refuse what is no language model, and what would run code or fetch kernels that the folder names."""
    path = folder / MODEL
    config = read_config(path)
    if "auto_map" in config:
        raise UserError(f"{path}: auto_map asks to run the folder's own Python code, which Danlu never does")
    for key, value in pairs(config):
        if key in ATTENTION_KEYS and "/" in str(value):
            raise UserError(f"{path}: {key} names code on the hub ({value!r}), which is never fetched; remove the line")
    kind = config.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        hint = did_you_mean(str(kind), list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
        raise UserError(f"{path}: model_type {kind!r} is no language model that transformers knows{hint}")


def pairs(tree: Any) -> list[tuple[str, Any]]:
    """Every key and value at any depth."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    here = list(tree.items()) if isinstance(tree, dict) else []
    return here + [pair for value in inner for pair in pairs(value)]


def check_safetensors(folder: Path, name: str) -> None:
    """Weights must be safetensors; a pickle could run code when it is read."""
    if (folder / f"{name}.safetensors").is_file() or (folder / f"{name}.safetensors.index.json").is_file():
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder}: its weights are pickled ({', '.join(pickles[:3])}), which can run code when read; ask for "
            f"safetensors, or where nothing can be harmed load it with transformers and `save_pretrained`"
        )
    raise UserError(f"{folder}: no weights: expected {name}.safetensors")

"""Write a merged model and prove on its logits that it is the model and the adapter it came from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from danlu.core.errors import UserError
from danlu.core.files import folder_at_once
from danlu.models.load import base_of, load_model, read_config, tokenizer_folder
from danlu.models.merge import merge
from danlu.models.quantized_loading import FILE
from danlu.models.resolve import MODEL, resolve
from danlu.models.save import save_tokenizer, save_weights
from danlu.tokens.templates.base import Template
from danlu.tokens.templates.own import Own
from danlu.tokens.tokenizer import load_tokenizer

PROBE_TOKENS = 64


@dataclass(frozen=True)
class Merged:
    """A merged model's folder, and how far its logits are from those of model and adapter."""

    folder: Path
    max_difference: float
    """largest difference of any logit over the probe, both computed in float32"""
    agreement: float
    """share of the probe's positions where the likeliest token is the same"""


def merge_adapter(
    adapter: str, into: Path, template: Template | None = None, dtype: torch.dtype | None = None
) -> Merged:
    """Merge an adapter into its base, write it in the base's dtype, load it again and compare.

    In float32 the difference is that of adding in another order; in bfloat16 the rounding of the weights is seen.
    """
    source = resolve(adapter)
    if into.exists():
        raise UserError(f"{into}: already there; name a new folder")
    if (source / FILE).is_file():
        raise UserError(
            f"{adapter}: it learned beside quantized weights ({FILE}), and is merged into whole ones, beside which "
            f"it is not quite the same; to merge it all the same, remove {source / FILE}"
        )
    model = load_model(source, torch.float32)
    if not isinstance(model, PeftModel):
        raise UserError(f"{adapter}: a whole model, there is no adapter to merge")
    stored = dtype or stored_dtype(source)
    before = probe(model)
    merged = merge(model)
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(stored)
    tokenizer = load_tokenizer(tokenizer_folder(source))
    with folder_at_once(into) as aside:
        save_weights(merged, aside)
        save_tokenizer(tokenizer, template or Own(), aside)
    after = probe(load_model(into, torch.float32))
    same = (before.argmax(-1) == after.argmax(-1)).float().mean()
    return Merged(into, (before - after).abs().max().item(), same.item())


def stored_dtype(adapter: Path) -> torch.dtype:
    """The dtype that the base model of an adapter is stored in."""
    name = read_config(base_of(adapter) / MODEL).get("dtype")
    return getattr(torch, name) if name else torch.float32


@torch.no_grad()
def probe(model: PreTrainedModel | PeftModel) -> Tensor:
    """Logits[T, V] in float32 over T tokens spread evenly over the vocabulary."""
    ids = torch.linspace(0, model.config.vocab_size - 1, PROBE_TOKENS).long()
    return model.eval()(input_ids=ids[None]).logits[0].float()

"""Write a merged model and prove on its logits that it is the model and the adapter it came from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn

from danlu.core.errors import UserError
from danlu.core.files import folder_at_once
from danlu.models.load import load_model
from danlu.models.merge import merge
from danlu.models.resolve import resolve
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
    model = load_model(source, torch.float32)
    if not isinstance(model, PeftModel):
        raise UserError(f"{adapter}: a whole model, there is no adapter to merge")
    stored = dtype or load_dtype(model)
    before = probe(model)
    merged = merge(model)
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(stored)
    tokenizer = load_tokenizer(source if (source / "tokenizer.json").is_file() else merged.name_or_path)
    with folder_at_once(into) as aside:
        save_weights(merged, aside)
        save_tokenizer(tokenizer, template or Own(), aside)
    after = probe(load_model(into, torch.float32))
    same = (before.argmax(-1) == after.argmax(-1)).float().mean()
    return Merged(into, (before - after).abs().max().item(), same.item())


def load_dtype(model: PeftModel) -> torch.dtype:
    """The dtype that the base model is stored in."""
    return getattr(torch, stored) if isinstance(stored := model.config.dtype, str) else stored


@torch.no_grad()
def probe(model: nn.Module) -> Tensor:
    """Logits[T, V] in float32 over T tokens spread evenly over the vocabulary."""
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(0, size - 1, PROBE_TOKENS).long()
    return model.eval()(input_ids=ids[None]).logits[0].float()

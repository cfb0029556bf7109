"""Add an adapter into its model's weights."""

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from danlu.core.errors import UserError


@torch.no_grad()
def merge(model: PeftModel) -> PreTrainedModel:
    """The base model with the adapter added into its weights: summed in float32, rounded once to what they were."""
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    if base.config.to_dict().get("quantization_config"):
        raise UserError("an adapter is merged into whole weights, and these are quantized; take the base as it was")
    dtype = base.dtype
    # peft rounds the sum of the matrices before it adds it; a bfloat16 weight would be rounded twice
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    merged = model.merge_and_unload(safe_merge=True)
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(dtype)
    merged.tie_weights()
    return merged.requires_grad_(True)

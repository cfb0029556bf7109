"""A language model's body under a layer that gives one number: what transformers calls sequence classification."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from danlu.core.errors import UserError

KIND = "ForSequenceClassification"
SCORE = "score"
"""what transformers calls that layer, in the weights and in peft's list of them"""


def is_classifier(config: PreTrainedConfig) -> bool:
    """Whether a model's configuration is of one that gives numbers instead of words."""
    return any(name.endswith(KIND) for name in config.architectures or [])


def score_of(model: nn.Module) -> nn.Module | None:
    """The layer that gives the number, if a model has one."""
    return dict(model.named_children()).get(SCORE)


def with_score(model: PreTrainedModel, scale: float = 1.0) -> PreTrainedModel:
    """The same body, in which one output stands for the vocabulary: its weights are drawn, and `scale` times as large.

    A model that has learnt to give numbers is returned as it is.
    """
    if score_of(model) is not None:
        return model
    whole: Any = skeleton(model.config)
    prefix, body = whole.base_model_prefix, model.base_model
    others = [name for name, _ in whole.named_children() if name != prefix]
    if type(getattr(whole, prefix)) is not type(body) or others != [SCORE]:
        raise UserError(
            f"{type(model).__name__}: {type(whole).__name__} is built otherwise; rewards need another model"
        )
    setattr(whole, prefix, body)
    for module in body.modules():  # one configuration for all: who is told how to attend tells the body too
        if getattr(module, "config", None) is model.config:
            module.config = whole.config
    weight = whole.get_input_embeddings().weight
    layer = nn.Linear(whole.score.in_features, 1, bias=False, dtype=model.dtype, device=weight.device)
    with torch.no_grad():
        drawn = torch.normal(0.0, whole.config.get_text_config().initializer_range, layer.weight.shape)
        layer.weight.copy_(scale * drawn)  # drawn on the processor, so that every device begins with the same
    whole.score = layer
    return whole.train(model.training)


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The classifier of an architecture, without weights."""
    config = deepcopy(config)
    config.num_labels = 1
    config.architectures = None
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise UserError(
            f"{config.model_type}: transformers has no sequence classification for it, which a reward model is; "
            "begin from another architecture"
        ) from error

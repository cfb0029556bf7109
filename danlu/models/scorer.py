"""A reward model seen through packs: one number for each segment, read at its last token."""

import copy
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.data.packing import Pack
from danlu.models.adapters.base import Adapter
from danlu.models.classifier import score_of
from danlu.models.heads import Head
from danlu.models.kernels.linear_logprob import Shape
from danlu.models.merge import merge
from danlu.models.policy import Policy
from danlu.models.save import newest, save_weights
from danlu.models.value_head import as_value_head

Layout = Literal["classifier", "merged", "value_head"]


class Scorer(Policy):
    """A model with one output, with or without an adapter, that reads packs."""

    layout: Layout = "classifier"
    """what is saved: what the adapter saves; a whole classifier; or a language model's adapter with value_head.bin"""

    def scores(self, pack: Pack) -> Tensor:
        """[S] fp32, one of each segment."""
        hidden_SH = self.hidden(pack)[last_places(pack, self.inner)].float()
        bias = self.head.bias
        return nn.functional.linear(hidden_SH, self.head.weight.float(), None if bias is None else bias.float())[:, 0]

    def save(self, adapter: Adapter, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write what was learned, in the layout that is wanted."""
        if self.layout == "merged" and isinstance(self.model, PeftModel):
            merged = copy.deepcopy(self.model).cpu()
            merged.load_state_dict(newest(self.model, state or {}))
            save_weights(merge(merged), folder)
            return
        super().save(adapter, folder, state)
        if self.layout == "value_head":
            given = (value for name, value in (state or {}).items() if name.rpartition(".")[0] == self._head_path())
            as_value_head(folder, next(given, self.head.weight))

    def _head_path(self) -> str:
        """The path of the layer that learns."""
        layer = self.head.layer
        return next(name for name, module in self.model.named_modules() if module is layer)

    def _find_head(self) -> Head:
        layer = score_of(self.inner)
        assert layer is not None, f"{type(self.inner).__name__} gives no score"
        return Head(layer, Shape())

    def _read(self, hidden_TH: Tensor) -> Tensor:
        return hidden_TH

    def _own(self, ids: Tensor) -> Tensor:
        return self.backbone(input_ids=ids[None], use_cache=False).last_hidden_state[0]


def last_places(pack: Pack, model: PreTrainedModel) -> Tensor:
    """[S] where each segment's score is read: its last token but for padding, which may be a token that ends it.

    transformers reads there, whatever is padded.
    """
    ids_T = pack.input_ids
    bounds = pack.cu_seqlens.to(ids_T.device, torch.long)
    padding = model.config.get_text_config().pad_token_id
    if padding is None:
        return bounds[1:] - 1
    places_T = torch.arange(len(ids_T), device=ids_T.device)
    last_T = torch.where(ids_T == padding, 0, places_T).cummax(0).values
    return torch.maximum(last_T[bounds[1:] - 1], bounds[:-1])

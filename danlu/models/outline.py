"""A model's outline: every layer and shape on torch's meta device, from its configuration; no weight is read."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from danlu.core.errors import UserError
from danlu.data.packing import Pack, Segment
from danlu.models.adapters.base import Adapter
from danlu.models.attention import PACKED
from danlu.models.classifier import with_score
from danlu.models.kernels.segment_attention import Segments
from danlu.models.load import ModelConfig, base_of, check_config, stretch
from danlu.models.policy import Policy
from danlu.models.quantized_loading import quantize_blocks
from danlu.models.resolve import ADAPTER, resolve
from danlu.models.scorer import Scorer


def outline(config: ModelConfig, *, scores: bool = False) -> PreTrainedModel:
    """The plain model that a run begins from, without its weights, in the dtype they are stored in, or quantized."""
    folder = resolve(config.path, weights=False)
    if (folder / ADAPTER).is_file():
        folder = base_of(folder, weights=False)
    check_config(folder)
    try:
        found = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if config.rope_scaling is not None:
            stretch(found, config.rope_scaling)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(found, dtype=found.dtype or torch.float32)
        if config.quantizer is not None:
            quantize_blocks(model, config.quantizer)
        return with_score(model) if scores else model
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}") from error


def adapted(model: PreTrainedModel, adapter: Adapter) -> nn.Module:
    """An outline with the adapter that will learn."""
    with torch.device("meta"):
        return adapter.sketch(model)


class Outline(Policy):
    """A policy without weights. Whose attention asks where segments lie is believed to keep them apart."""

    recomputation: ClassVar[dict[str, Any]] = {**Policy.recomputation, "determinism_check": "none"}

    def _keeps_segments_apart(self) -> bool:
        if not type(self.inner)._can_set_attn_implementation():
            return False
        own_attention = self.inner.config._attn_implementation or "eager"
        self.inner.set_attn_implementation(PACKED)
        self.packed = True
        try:
            pack, segments = outline_pack([7, 9]), Asked([7, 9], "meta")
            self._stream(pack.input_ids, pack.positions, segments)
            apart = segments.asked
        except (TypeError, ValueError, RuntimeError):
            apart = False
        if not apart:
            self.inner.set_attn_implementation(own_attention)
        return apart


class ScorerOutline(Outline, Scorer):
    """A reward model without weights."""


class Asked(Segments):
    """Segments that notice whether anybody looks at them."""

    asked = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("lengths", "ends", "cu_seqlens", "blocks"):
            object.__setattr__(self, "asked", True)
        return super().__getattribute__(name)

    def __init__(self, lengths: Sequence[int], device: str) -> None:
        super().__init__(lengths, device)
        self.asked = False


def outline_pack(lengths: Sequence[int], answers: int = 1) -> Pack:
    """A pack without values, every token of which is trained; of rows that hold so many answers."""
    ids = torch.empty(sum(lengths), dtype=torch.long, device="meta")
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    weights = torch.empty(len(ids), device="meta")
    facts = {"good": True, "margin": 0.0, "reference": 0.0}
    segments = [Segment("", "", 0, facts, rank=number % answers) for number in range(len(lengths))]
    return Pack(ids, torch.empty_like(ids), torch.empty_like(ids), weights, ends, segments)

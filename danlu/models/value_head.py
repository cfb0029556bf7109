"""A reward model as LLM-Genie keeps it: an adapter of the language model, and value_head.bin beside it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from danlu.core.files import write_json
from danlu.models.classifier import SCORE
from danlu.models.resolve import ADAPTER

FILE = "value_head.bin"
WEIGHTS = "adapter_model.safetensors"


def as_value_head(folder: Path, weight_1H: Tensor) -> None:
    """Turn the adapter of a classifier, as it was saved, into that layout."""
    weight = weight_1H.detach().float().cpu()
    # a pickle, as whoever wants this layout reads it; Danlu reads the safetensors
    torch.save({"summary.weight": weight, "summary.bias": torch.zeros(1)}, folder / FILE)
    config = json.loads((folder / ADAPTER).read_text())
    others = [name for name in config["modules_to_save"] or [] if name not in (SCORE, "classifier")]
    write_json(folder / ADAPTER, config | {"task_type": "CAUSAL_LM", "modules_to_save": others or None})
    kept = {name: value for name, value in load_file(folder / WEIGHTS).items() if f".{SCORE}." not in name}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})

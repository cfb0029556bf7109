"""Pairs and ratings in packs, and models that are not where they began."""

import json

import pytest
import torch
from torch import nn

from danlu.data.config import DataConfig
from danlu.data.packing import Pack
from danlu.data.pipeline import load_data
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import PreferencePair, Rating

PAIRS = [
    {"prompt": "count", "chosen": "one two three", "rejected": "no"},
    {"prompt": "say it again and again", "chosen": "four", "rejected": "four five six seven"},
    {"prompt": "and now", "chosen": "eight nine", "rejected": "ten eleven", "margin": 0.5},
]


@pytest.fixture
def judged_packs(tmp_path):
    """`judged_packs(rows, tokens)`: rows of pairs or ratings in packs of so many tokens."""

    def pack(rows: list[dict], tokens: int = 100_000, **source) -> list[Pack]:
        path = tmp_path / "judged.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = DataConfig(
            sources={"path": str(path), **source}, cache=tmp_path / "cache", workers=1, template="chatml"
        )
        data = load_data(config, tiny_tokenizer(), (PreferencePair, Rating), seed=0)
        return data.train.packs(tokens)

    return pack


def stir(model: nn.Module, seed: int = 3) -> None:
    """Move everything that learns away from where it began."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=draw).to(parameter)


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of everything that learns, by name."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

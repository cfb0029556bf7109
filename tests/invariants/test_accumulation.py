"""One batch in several passes is the batch in one: losses, norms and trained weights, in the last short step too."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from danlu.data.config import DataConfig
from danlu.data.pipeline import load_data
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.step import Update, train_step
from danlu.engine.training import Training
from danlu.models.adapters import adapters
from danlu.models.load import ModelConfig
from danlu.objectives.sft import SFT
from danlu.tokens.tokenizer import load_tokenizer

ROWS, BATCH = 10, 4  # the last of three steps has two rows
ALL_AT_ONCE, ONE_BY_ONE = 4096, 2  # a row that is longer than a pack is a pack by itself
SGD = {"name": "sgd", "lr": 0.5}
ADAMW = {"name": "adamw", "lr": 1e-3}


@dataclass
class Trained:
    """What a short run did."""

    updates: list[Update]
    passes: list[int]
    weights: dict[str, Tensor]


@pytest.fixture
def train(tiny, tmp_path):
    """One epoch, each step's rows in packs of so many tokens."""
    texts = ["one two three four " * (1 + number * 7 % 5) for number in range(ROWS)]
    rows = [{"instruction": f"do {number}", "output": text} for number, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def train(pack_tokens: int, adapter: str = "full", optimizer: dict | None = None, precision="fp32") -> Trained:
        config = EngineConfig(precision=precision, device="cpu", optimizer=optimizer or SGD, schedule="constant")
        engine, objective = Engine(config), SFT(label_smoothing=0.1, z_loss=1e-3)
        models = objective.models(engine.builder(ModelConfig(path="builtin:tiny-llama"), adapters[adapter]()))
        data = DataConfig(
            sources=str(tmp_path / "rows.jsonl"),
            batch={"rows": BATCH},
            pack_tokens=pack_tokens,
            cache=tmp_path / "cache",
            workers=1,
        )
        loader = load_data(data, load_tokenizer(tiny("llama")), objective.learns_from, seed=1).loader(epochs=1)
        training = Training(config, models, engine.dtype, loader.num_steps, lambda name: 1.0)
        updates, passes = [], []
        for step in loader:
            passes.append(len(step.packs))
            updates.append(train_step(engine, training, objective, step.packs, lambda: False))
        return Trained(updates, passes, {name: value.clone() for name, value in training.masters.state().items()})

    return train


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("pack_tokens", [ONE_BY_ONE, 64])
def test_any_number_of_passes_is_one_batch(train, adapter, pack_tokens):
    whole, parts = train(ALL_AT_ONCE, adapter), train(pack_tokens, adapter)
    assert whole.passes == [1, 1, 1]
    assert sum(parts.passes) > 3
    for ours, theirs in zip(parts.updates, whole.updates, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
        assert (ours.count, ours.tokens, ours.trained_tokens) == (theirs.count, theirs.tokens, theirs.trained_tokens)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-5)
    for name, value in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], value, rtol=1e-5, atol=2e-6, msg=name)


def test_four_passes_of_one_row_are_one_pass_of_four_and_the_short_step_has_two(train):
    assert train(ONE_BY_ONE).passes == [4, 4, 2]


def test_adam_moves_the_same_way(train):
    whole, parts = train(ALL_AT_ONCE, optimizer=ADAMW), train(ONE_BY_ONE, optimizer=ADAMW)
    for name, value in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], value, rtol=0, atol=1e-4, msg=name)


def test_in_bf16_passes_are_summed_in_fp32(train):
    whole, parts = train(ALL_AT_ONCE, precision="bf16"), train(ONE_BY_ONE, precision="bf16")
    for ours, theirs in zip(parts.updates, whole.updates, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=2e-3)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=2e-2)

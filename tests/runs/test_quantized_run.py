"""A run beside quantized weights: it learns, resumes to the same bits, and what cannot work is refused at once."""

import json

import pytest
import torch

from danlu.core.errors import UserError
from danlu.engine.metrics import read_metrics
from danlu.models import load
from danlu.models.load import load_model
from danlu.models.quantized_linear import quantized_layers
from danlu.runs.recipe import load_recipe
from danlu.runs.start import start
from tests.runs.small_run import BF16, SmallRun

SETTINGS = ("engine.steps=6", "engine.evaluate.every_steps=6", "engine.optimizer.lr=1e-2", "adapter.dropout=0")


@pytest.mark.parametrize(("quantizer", "more"), [("nf4", ()), ("int8", ()), ("fp8", ()), ("nf4", BF16), ("fp8", BF16)])
def test_it_learns_and_its_artifact_is_what_was_trained(tmp_path, quantizer, more):
    SmallRun(tmp_path, (*SETTINGS, f"model.quantizer={quantizer}", *more)).go(tmp_path / "run")
    evals = [line["loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if line["event"] == "eval"]
    assert evals[-1] < evals[0] - 0.5
    model = load_model(tmp_path / "run/final")
    assert len(quantized_layers(model)) == 14
    assert json.loads((tmp_path / "run/final/quantizer.json").read_text())["quantizer"]["name"] == quantizer


def test_it_resumes_to_the_same_bits(tmp_path):
    small = SmallRun(tmp_path, ("model.quantizer={name: nf4, double_quant: true}", "engine.steps=6"))
    oracle = small.go(tmp_path / "oracle")
    small.die(tmp_path / "run", after=4)
    assert small.go(tmp_path / "run") == oracle


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ("full", "model.quantizer nf4: adapter full learns the weights themselves; use plain lora"),
        ("{name: freeze, blocks: 1}", "adapter freeze learns the weights themselves"),
        ("{name: lora, dora: true}", "adapter lora with dora measures the weights themselves"),
    ],
)
def test_other_adapters_are_refused_before_anything_is_loaded(adapter, why, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load_base", lambda *given: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match=why):
        start("qlora", ["data.sources=rows.jsonl", f"adapter={adapter}", f"folder={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_the_recipe_is_found_by_name():
    run = load_recipe("qlora", ["data.sources=x", "model.quantizer.double_quant=false"])
    assert run.model.quantizer is not None
    assert run.model.quantizer.model_dump() == {"double_quant": False}


def test_another_quantizer_is_another_run(tmp_path):
    small = SmallRun(tmp_path, ("model.quantizer=int8", "engine.steps=2"))
    small.go(tmp_path / "run")
    with pytest.raises(UserError, match="model.quantizer"):
        small.go(tmp_path / "run", "model.quantizer=fp8")


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["nf4", "int8", "fp8"])
def test_smollm2_learns_beside_quantized_weights(smollm2, quantizer, tmp_path):
    torch.manual_seed(0)
    settings = ("model.path=builtin:smollm2-135m", f"model.quantizer={quantizer}", "engine.precision=auto")
    SmallRun(tmp_path, (*SETTINGS, *settings, "engine.optimizer.lr=1e-3")).go(tmp_path / "run")
    evals = [line["loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if line["event"] == "eval"]
    assert evals[-1] < evals[0] - 0.5

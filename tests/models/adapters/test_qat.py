"""Quantization-aware training: what is trained is what is saved, and that lies on the grid."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from danlu.core.errors import UserError
from danlu.core.parts import Config
from danlu.engine.checkpoint_folder import Checkpoint
from danlu.engine.metrics import read_metrics
from danlu.models.adapters.qat import QAT, rounded_layers
from danlu.models.fake_quantize import fake_quantize
from danlu.models.load import load_model
from tests.models.adapters.test_lora import logits, shaken
from tests.runs.small_run import BF16, SmallRun

WAYS = [{"bits": 4}, {"bits": 8, "group_size": None}]


@pytest.mark.parametrize("settings", WAYS, ids=str)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "falcon", "moe"])
def test_what_is_saved_is_what_was_trained_and_lies_on_the_grid(architecture, settings, tiny, tmp_path):
    adapter = QAT(**settings)
    model = shaken(adapter.apply(load_model(tiny(architecture))))
    assert all(parameter.requires_grad for parameter in model.parameters())
    whole = {name: layer.weight.clone() for name, layer in rounded_layers(model).items()}
    adapter.save(model, tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(saved), logits(model))
    for name, weight in whole.items():
        found = saved.get_parameter(f"{name}.weight")
        assert not torch.equal(found, weight)
        assert torch.equal(found, fake_quantize(found, adapter.bits, adapter.group_size))
        assert (found - weight).norm() < (0.12 if adapter.bits == 4 else 0.012) * weight.norm()
    head = model.get_output_embeddings().weight
    assert torch.equal(saved.get_output_embeddings().weight, head)


@pytest.mark.parametrize("more", [(), BF16], ids=["fp32", "bf16"])
def test_a_run_learns_on_the_grid(tmp_path, more):
    settings = ("adapter={name: qat, bits: 4}", "engine.steps=6", "engine.evaluate.every_steps=6", *more)
    SmallRun(tmp_path, (*settings, "engine.optimizer.lr=3e-3")).go(tmp_path / "run")
    evals = [line["loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if line["event"] == "eval"]
    assert evals[-1] < evals[0] - 0.5
    model = load_model(tmp_path / "run/final")
    masters = Checkpoint.open(tmp_path / "run/checkpoints/step-000006").tensors("masters")
    for name, layer in rounded_layers(model).items():
        seen = masters[f"policy.model.{name}.weight"].to(torch.bfloat16 if more else torch.float32)
        assert torch.equal(layer.weight.float(), fake_quantize(seen, 4, 32).float())
    SmallRun(tmp_path, settings).go(tmp_path / "next", f"model.path={tmp_path / 'run'}", "adapter={name: full}")
    next_evals = [line["loss"] for line in read_metrics(tmp_path / "next/metrics.jsonl") if line["event"] == "eval"]
    assert next_evals[0] == pytest.approx(evals[-1], rel=1e-6 if not more else 1e-3)


def test_what_cannot_be_rounded_is_said(tiny):
    with pytest.raises(UserError, match="group_size: 40 does not divide the 64 inputs of model.layers.0.self_attn"):
        QAT(group_size=40).apply(load_model(tiny("llama")))
    with pytest.raises(UserError, match="GPT2LMHeadModel has none in its blocks"):
        QAT().apply(load_model(tiny("gpt2")))
    assert issubclass(QAT, Config)
    assert QAT().needs_whole_weights

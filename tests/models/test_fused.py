"""peft's layers run fused where that is the same, and as they are where it is not."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from danlu.models.fused import fuse_lora
from danlu.models.kernels import lora_linear
from danlu.models.load import ModelConfig, build_model

IDS = torch.tensor([[5, 17, 33, 80, 4, 9]])


def base(architecture: str = "llama") -> PreTrainedModel:
    return build_model(ModelConfig(path=f"builtin:tiny-{architecture}"), torch.float32)


def adapted(architecture: str = "llama", **settings) -> PeftModel:
    """A model with an adapter that is not the identity."""
    settings = {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 6, **settings}
    torch.manual_seed(1)
    model = get_peft_model(base(architecture), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def outcome(model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradient of every parameter."""
    model.zero_grad()
    logits = model(IDS).logits
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Counts the runs of the fused node."""
    seen: list[int] = []
    apply = lora_linear.LoRALinear.apply
    monkeypatch.setattr(lora_linear.LoRALinear, "apply", lambda *given: (seen.append(1), apply(*given))[1])
    return seen


@pytest.mark.parametrize("architecture", ["llama", "internlm", "phi3"])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_fused_model_is_pefts_model(architecture, rslora, calls):
    model = adapted(architecture, use_rslora=rslora, target_modules="all-linear")
    logits, gradients = outcome(model)
    assert fuse_lora(model) == sum("lora_A" in name for name in gradients)
    fused_logits, fused_gradients = outcome(model)
    assert len(calls) == len(gradients) / 2
    torch.testing.assert_close(fused_logits, logits, rtol=1e-5, atol=1e-5)
    assert fused_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    "settings",
    [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True, "target_modules": ["q_proj"]}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_more_than_plain_lora_stays_pefts(settings, calls):
    model = adapted("internlm", **settings)
    assert fuse_lora(model) == 0
    outcome(model)
    assert not calls


def test_gpt2s_transposed_layers_stay_pefts():
    assert fuse_lora(adapted("gpt2", target_modules=["c_attn"], fan_in_fan_out=True)) == 0


def test_with_its_adapter_off_it_is_the_base_model(calls):
    model = adapted()
    assert fuse_lora(model) == 4
    expected = base()(IDS).logits
    with model.disable_adapter():
        torch.testing.assert_close(model(IDS).logits, expected)
    assert not calls
    assert (model(IDS).logits - expected).abs().max() > 1e-2
    assert len(calls) == 4


def test_merged_layers_are_not_added_twice(calls):
    model = adapted()
    expected = model(IDS).logits
    fuse_lora(model)
    model.merge_adapter()
    torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert not calls
    model.unmerge_adapter()
    torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 4


def test_two_adapters_at_once_are_pefts_work(calls):
    model = adapted()
    fuse_lora(model)
    model.add_adapter("second", LoraConfig(target_modules=["q_proj", "down_proj"], r=2, task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "second"])
    model(IDS)
    assert not calls


def test_fusing_changes_no_name_and_no_weight():
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fuse_lora(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())

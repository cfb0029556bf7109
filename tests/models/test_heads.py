"""The output layer is found by structure, whatever peft has put beside it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.heads import head_of
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy
from tests.models.test_policy import assert_same_gradients, gradients, own_logits, pack_of


def base(architecture: str = "llama") -> nn.Module:
    return build_model(ModelConfig(path=f"builtin:tiny-{architecture}"), torch.float32)


def loss_by_logits(policy: Policy, pack) -> torch.Tensor:
    logits = own_logits(policy, pack)
    return nn.functional.cross_entropy(logits, pack.targets, ignore_index=-100, reduction="sum")


def check(policy: Policy) -> dict[str, torch.Tensor]:
    """Loss and gradients by the head are those by the model's own logits."""
    pack = pack_of(policy.inner.config.vocab_size)
    exact = loss_by_logits(policy, pack)
    ours = -policy.logprobs(pack).sum()
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)
    expected = gradients(policy, exact)
    found = gradients(policy, ours)
    assert_same_gradients(found, expected, rtol=2e-5)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_head_whose_product_is_its_logits(architecture):
    model = base(architecture).eval()
    head = head_of(model)
    ids = torch.arange(5, 15)[None]
    hidden = model.base_model(input_ids=ids).last_hidden_state
    logits = nn.functional.linear(hidden, head.weight, head.bias) * head.shape.scale
    if head.shape.softcap is not None:
        logits = head.shape.softcap * torch.tanh(logits / head.shape.softcap)
    torch.testing.assert_close(logits, model(input_ids=ids).logits)


def test_gemma2_caps_its_logits():
    assert head_of(base("gemma2")).shape.softcap == 30.0
    assert head_of(base("llama")).shape.softcap is None


@pytest.mark.parametrize(("key", "value", "scale"), [("logit_scale", 0.0625, 0.0625), ("logits_scaling", 8.0, 0.125)])
def test_scales_of_cohere_and_granite_are_read(key, value, scale):
    model = base()
    setattr(model.config, key, value)
    assert head_of(model).shape.scale == scale


def test_tied_weights_learn_from_both_ends():
    policy = Policy(Full().apply(base("qwen2"))).eval()
    assert policy.head.weight is policy.inner.get_input_embeddings().weight
    check(policy)


def with_lora_on_the_head(architecture: str = "llama", **settings) -> Policy:
    torch.manual_seed(2)
    config = LoraConfig(target_modules=["lm_head", "q_proj"], r=4, lora_alpha=6, task_type="CAUSAL_LM", **settings)
    model = get_peft_model(base(architecture), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return Policy(model).eval()


def test_lora_on_the_head_learns():
    found = check(with_lora_on_the_head())
    assert any("lm_head.lora_A" in name and gradient.any() for name, gradient in found.items())


def test_lora_on_the_head_can_be_off_or_merged():
    policy = with_lora_on_the_head()
    pack = pack_of(policy.inner.config.vocab_size)
    expected = policy.logprobs(pack)
    with policy.model.disable_adapter():
        torch.testing.assert_close(policy.logprobs(pack), Policy(base()).eval().logprobs(pack))
    policy.model.merge_adapter()
    torch.testing.assert_close(policy.logprobs(pack), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.1}], ids=str)
def test_what_the_head_cannot_have_is_refused(settings):
    with pytest.raises(ValueError, match="output layer"):
        with_lora_on_the_head(**settings)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_embeddings_and_head_learn_beside_lora(architecture):
    policy = Policy(Lora(rank=2, embeddings=True).apply(base(architecture))).eval()
    found = check(policy)
    assert any("modules_to_save" in name and gradient.any() for name, gradient in found.items())
    assert policy.head.weight.requires_grad
    with torch.no_grad():
        policy.head.weight.add_(0.01 * torch.randn_like(policy.head.weight))
    check(policy)

"""One node for a whole block gives what the block gives, or is not used; on a processor by its plain arithmetic."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from danlu.data.packing import Pack
from danlu.models.adapters.lora import Lora
from danlu.models.blocks import blocks_of
from danlu.models.fused_block import FusedForward, fuse_blocks
from danlu.models.load import ModelConfig, build_model
from danlu.models.masters import Masters
from danlu.models.policy import Policy
from danlu.models.quantizers.fp8 import FP8

LENGTHS = (7, 19, 30)
GATED = ["llama", "mistral", "qwen2", "qwen3", "internlm"]


def pack(seed: int = 0) -> Pack:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 200, (n,), generator=generator).numpy() for n in LENGTHS]
    return Pack.of([(row, row > 20) for row in rows])


def adapted(architecture: str = "llama", dtype: torch.dtype = torch.float64, **settings) -> Policy:
    """A policy whose adapter is not the identity."""
    model = build_model(ModelConfig(path=f"builtin:tiny-{architecture}")).to(dtype)
    torch.manual_seed(0)
    config = LoraConfig(
        **{"r": 3, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": False, **settings}
    )
    return Policy(get_peft_model(model, config, autocast_adapter_dtype=False)).train()


def learning(architecture: str = "llama", *parts: str) -> Policy:
    """A policy that learns those weights whose names hold one of `parts`; all of them by default."""
    model = build_model(ModelConfig(path=f"builtin:tiny-{architecture}")).double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not parts or any(part in name for part in parts))
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)  # a bias of zeros would hide a mistake
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)  # and so would weights of one
    return Policy(model).train()


def outcome(policy: Policy) -> dict[str, torch.Tensor]:
    """Log-probabilities, and the gradient of everything that learns."""
    policy.zero_grad()
    logps = policy.logprobs(pack())
    logps.sum().backward()
    learnt = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return {"logps": logps.detach(), **learnt}


def check_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], bound: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name] - value).double().norm() / value.double().norm()
        assert error < bound, f"{name}: {error:.1e}"


@pytest.mark.parametrize("policy_of", [adapted, learning], ids=["lora", "full"])
@pytest.mark.parametrize("architecture", GATED)
def test_values_and_gradients_are_the_blocks_own(architecture, policy_of):
    policy = policy_of(architecture)
    expected = outcome(policy)
    assert fuse_blocks(policy.inner) == len(blocks_of(policy.inner)[1])
    check_same(outcome(policy), expected)


@pytest.mark.parametrize("architecture", ["mistral", "qwen2"])
def test_a_window_is_the_blocks_own(architecture):
    """Shorter than the segments, wherever the architecture keeps it."""
    policy = adapted(architecture)
    policy.inner.config.sliding_window = 5
    for block in blocks_of(policy.inner)[1]:
        if hasattr(block.self_attn, "sliding_window"):
            block.self_attn.sliding_window = 5
    expected = outcome(policy)
    assert fuse_blocks(policy.inner)
    assert all(block.forward.fused.window == 5 for block in blocks_of(policy.inner)[1])
    check_same(outcome(policy), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["down_proj"]},
        {"r": 70, "lora_alpha": 7},
        {"use_rslora": True},
    ],
    ids=str,
)
def test_any_layers_may_have_an_adapter(settings):
    policy = adapted(**settings)
    expected = outcome(policy)
    assert fuse_blocks(policy.inner)
    check_same(outcome(policy), expected)


def test_without_its_adapter_it_is_the_plain_block():
    policy = adapted()
    assert isinstance(policy.model, PeftModel)
    policy.inner.get_input_embeddings().weight.requires_grad_()
    with policy.model.disable_adapter():
        expected = outcome(policy)
        assert fuse_blocks(policy.inner)
        check_same(outcome(policy), expected)


@pytest.mark.parametrize("recomputed", [0, None])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_an_mlp_may_take_some_tokens_at_a_time(kind, recomputed):
    """10 does not divide the pack's 56 tokens."""
    policy = adapted() if kind == "lora" else learning("qwen2")
    expected = outcome(policy)
    assert fuse_blocks(policy.inner, mlp_tokens=10)
    policy.recompute(recomputed)
    check_same(outcome(policy), expected)


def test_blocks_can_be_recomputed():
    policy = adapted()
    expected = outcome(policy)
    assert fuse_blocks(policy.inner)
    policy.recompute(None)
    check_same(outcome(policy), expected)


def test_updates_reach_the_weights_that_were_laid_together():
    policy, other = adapted(dtype=torch.float32), adapted(dtype=torch.float32)
    masters, plain = Masters(policy, torch.bfloat16), Masters(other, torch.bfloat16)
    assert fuse_blocks(policy.inner)
    for one in (masters, plain):
        with torch.no_grad():
            for parameter in one.parameters.values():
                parameter.mul_(2.0)
        one.publish()
    torch.testing.assert_close(policy.logprobs(pack()), other.logprobs(pack()), atol=0.2, rtol=0.05)
    for name, parameter in other.named_parameters():
        assert torch.equal(policy.get_parameter(name), parameter), name


def test_in_fp32_what_the_optimiser_updates_lies_in_one_piece():
    """There the weights are their own masters, and an update that walks through memory must meet nothing else."""
    policy, other = adapted(dtype=torch.float32), adapted(dtype=torch.float32)
    masters, plain = Masters(policy, torch.float32), Masters(other, torch.float32)
    assert fuse_blocks(policy.inner)
    assert all(parameter.is_contiguous() for parameter in masters.parameters.values())
    for name, parameter in masters.parameters.items():
        for one in (parameter, plain.parameters[name]):
            one.data.view(-1).mul_(1.5)
    found, expected = outcome(policy), outcome(other)
    check_same(found, expected, 1e-4)
    frozen = {name: value for name, value in other.named_parameters() if not value.requires_grad}
    assert all(torch.equal(policy.get_parameter(name), value) for name, value in frozen.items())


def test_reading_and_writing_without_packs_is_left_to_the_block():
    policy = adapted(dtype=torch.float32)
    ids = torch.tensor([[5, 17, 33, 80]])
    expected = policy.inner.generate(ids, max_new_tokens=5, do_sample=False)
    assert fuse_blocks(policy.inner)
    assert torch.equal(policy.inner.generate(ids, max_new_tokens=5, do_sample=False), expected)


@pytest.mark.parametrize("architecture", ["gemma", "gpt-neox", "bloom"])
def test_other_blocks_are_left_as_they_are(architecture):
    policy = adapted(architecture, dtype=torch.float32)
    assert fuse_blocks(policy.inner) == 0
    assert not any(isinstance(block.forward, FusedForward) for block in blocks_of(policy.inner)[1])


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.1}], ids=str)
def test_other_adapters_are_left_as_they_are(settings):
    assert fuse_blocks(adapted(dtype=torch.float32, **settings).inner) == 0


@pytest.mark.parametrize(
    ("architecture", "parts"),
    [
        ("qwen2", ("layernorm",)),
        ("qwen2", ("mlp",)),
        ("qwen2", ("o_proj", "input_layernorm")),
        ("qwen2", ("layers.1",)),
        ("qwen2", ("q_proj", "k_proj", "v_proj")),
        ("qwen3", ("q_norm", "k_norm")),
        ("qwen3", ("down_proj",)),
    ],
)
def test_some_of_a_block_may_learn(architecture, parts):
    policy = learning(architecture, *parts)
    expected = outcome(policy)
    assert fuse_blocks(policy.inner)
    check_same(outcome(policy), expected)


def test_a_product_of_which_half_learns_is_left_as_it_is():
    assert fuse_blocks(learning("llama", "up_proj").inner) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_updates_reach_weights_that_learn(dtype):
    policy = Policy(build_model(ModelConfig(path="builtin:tiny-llama"))).train()
    other = Policy(build_model(ModelConfig(path="builtin:tiny-llama"))).train()
    masters, plain = Masters(policy, dtype), Masters(other, dtype)
    assert fuse_blocks(policy.inner)
    for one in (masters, plain):
        with torch.no_grad():
            for parameter in one.parameters.values():
                parameter.mul_(1.5)
        one.publish()
    for name, parameter in other.named_parameters():
        assert torch.equal(policy.get_parameter(name), parameter), name
    error = policy.logprobs(pack()) - other.logprobs(pack())
    assert error.norm() < (0.05 if dtype == torch.bfloat16 else 1e-5) * other.logprobs(pack()).norm()


def test_a_block_that_only_looks_like_it_is_found_out(caplog):
    policy = adapted(dtype=torch.float32)
    block = blocks_of(policy.inner)[1][1]
    own = block.mlp.forward
    block.mlp.forward = lambda x: 1.1 * own(x)
    expected = outcome(policy)
    assert fuse_blocks(policy.inner) == 0
    assert "gives other numbers" in caplog.text
    check_same(outcome(policy), expected)


def test_quantized_blocks_are_fused_too():
    model = build_model(ModelConfig(path="builtin:tiny-llama")).float()
    for block in blocks_of(model)[1]:
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                block.set_submodule(name, FP8().layer(module))
    policy = Policy(Lora(rank=4).apply(model)).train()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    expected = outcome(policy)
    assert fuse_blocks(policy.inner)
    check_same(outcome(policy), expected)

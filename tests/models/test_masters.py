"""What learns is kept in fp32: a bf16 model is trained as an fp32 optimiser would, given the same gradients."""

import copy

import pytest
import torch
from torch import nn

from danlu.models.adapters.freeze import Freeze
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.load import ModelConfig, build_model
from danlu.models.masters import Masters, total_norm
from danlu.models.policy import Policy
from tests.models.test_policy import pack_of


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.frozen, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("angles", torch.rand(8) / 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.frozen(self.first(x)).cos() * self.angles.to(x.dtype))


def batch(seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_trained_as_fp32_adamw_would(dtype):
    net = Net()
    oracle = {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}
    masters = Masters(net, dtype)
    settings = {"lr": 1e-3, "weight_decay": 0.1}
    ours = torch.optim.AdamW(masters.parameters.values(), **settings)
    theirs = torch.optim.AdamW(oracle.values(), **settings)
    for step in range(20):
        net(batch(step, dtype)).float().square().sum().backward()
        for name, value in oracle.items():
            value.grad = masters.parameters[name].grad.clone()
        ours.step()
        theirs.step()
        masters.clear()
        masters.publish()
    for name, value in oracle.items():
        assert torch.equal(masters.parameters[name], value)
        assert torch.equal(net.get_parameter(name), value.to(dtype))
    assert masters.state().keys() == oracle.keys()


def test_small_updates_add_up_in_masters_that_bf16_alone_would_lose():
    net = Net()
    masters = Masters(net, torch.bfloat16)
    before = masters.parameters["last.weight"].detach().clone()
    for _ in range(100):
        with torch.no_grad():
            masters.parameters["last.weight"].add_(1e-5)
        masters.publish()
    torch.testing.assert_close(masters.parameters["last.weight"].detach() - before, torch.full_like(before, 1e-3))
    assert torch.equal(net.last.weight, (before + 1e-3).bfloat16())


def test_gradients_of_several_packs_are_summed_in_fp32():
    net, dtype = Net(), torch.bfloat16
    masters = Masters(net, dtype)
    alone = []
    for seed in range(6):
        net(batch(seed, dtype)).float().sum().backward()
        alone.append(masters.parameters["first.weight"].grad.clone())
        assert net.first.weight.grad is None
        masters.clear()
    for seed in range(6):
        net(batch(seed, dtype)).float().sum().backward()
    summed = masters.parameters["first.weight"].grad
    assert summed.dtype == torch.float32
    torch.testing.assert_close(summed, torch.stack(alone).sum(0), rtol=1e-6, atol=1e-6)
    assert not torch.equal(summed, sum(each.bfloat16() for each in alone).float())


def test_in_fp32_a_master_is_the_parameter_itself():
    net = Net()
    masters = Masters(net, torch.float32)
    assert all(masters.parameters[name] is net.get_parameter(name) for name in masters.parameters)
    net(batch(0, torch.float32)).sum().backward()
    assert len(masters.gradients()) == 4
    masters.publish()
    masters.clear()
    assert net.first.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_frozen_parameters_stay_and_buffers_keep_their_precision(dtype):
    net = Net()
    frozen, angles = net.frozen.weight.detach().clone(), net.angles.clone()
    masters = Masters(net, dtype)
    optimizer = torch.optim.AdamW(masters.parameters.values(), lr=0.1)
    net(batch(0, dtype)).float().sum().backward()
    optimizer.step()
    masters.publish()
    assert "frozen.weight" not in masters.parameters
    assert torch.equal(net.frozen.weight, frozen.to(dtype))
    assert net.frozen.weight.grad is None
    assert torch.equal(net.angles, angles)
    assert {p.dtype for p in net.parameters()} == {dtype}


def test_rotary_frequencies_stay_fp32_in_a_bf16_model():
    policy = Policy(Full().apply(build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32)))
    rotary = policy.inner.model.rotary_emb.inv_freq.clone()
    assert rotary.bfloat16().float().ne(rotary).any()
    Masters(policy, torch.bfloat16)
    assert torch.equal(policy.inner.model.rotary_emb.inv_freq, rotary)


def test_saved_masters_come_back_exactly():
    net = Net()
    masters = Masters(net, torch.bfloat16)
    saved = {name: value.clone() for name, value in masters.state().items()}
    with torch.no_grad():
        for master in masters.parameters.values():
            master.mul_(2)
    masters.load(saved)
    assert all(torch.equal(value, saved[name]) for name, value in masters.state().items())
    assert torch.equal(net.last.weight, saved["last.weight"].bfloat16())
    with pytest.raises(KeyError):
        masters.load({"last.weight": saved["last.weight"]})


@pytest.mark.parametrize(
    "adapter",
    [Full(), Lora(rank=2), Lora(rank=2, embeddings=True), Freeze(blocks=1)],
    ids=["full", "lora", "tables", "freeze"],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_bf16_policy_gives_every_master_its_fp32_gradient(adapter, architecture):
    torch.manual_seed(4)
    exact = Policy(adapter.apply(build_model(ModelConfig(path=f"builtin:tiny-{architecture}"), torch.float32))).eval()
    rounded = copy.deepcopy(exact)
    kept = {name: value.clone() for name, value in exact.named_parameters() if value.requires_grad}
    masters = Masters(rounded, torch.bfloat16)
    assert all(torch.equal(masters.parameters[name], value) for name, value in kept.items())
    pack = pack_of(exact.inner.config.vocab_size)
    for policy in (exact, rounded):
        (-policy.logprobs(pack).sum()).backward()
    assert masters.parameters.keys() == kept.keys()
    for name, master in masters.parameters.items():
        gradient = exact.get_parameter(name).grad
        if gradient is None or not gradient.any():
            assert master.grad is None or not master.grad.any()
            continue
        assert (master.grad - gradient).norm() <= 0.1 * gradient.norm(), name


def test_the_norm_is_that_of_all_gradients_together():
    gradients = [torch.randn(3, 4), torch.randn(7)]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.testing.assert_close(total_norm(gradients), flat.norm())
    assert total_norm([]) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_values_are_shown_for_a_while_and_cost_no_bit(dtype):
    net = Net()
    masters = Masters(net, dtype)
    before = {name: value.clone() for name, value in masters.state().items()}
    model = {name: value.clone() for name, value in net.state_dict().items()}
    other = torch.randn(8, 6)
    with masters.showing({"first.weight": other}):
        assert torch.equal(net.first.weight, other.to(dtype))
        assert torch.equal(net.last.weight, model["last.weight"])
    assert all(torch.equal(value, before[name]) for name, value in masters.state().items())
    assert all(torch.equal(value, model[name]) for name, value in net.state_dict().items())


def test_gradients_of_small_masters_lie_in_one_tensor():
    net = Net()
    masters = Masters(net, torch.bfloat16)
    assert masters.gradients() == []
    net(batch(0, torch.bfloat16)).float().square().sum().backward()
    net(batch(1, torch.bfloat16)).float().square().sum().backward()
    [together] = masters.gradients()
    each = [master.grad for master in masters.parameters.values()]
    torch.testing.assert_close(together, torch.cat([gradient.flatten() for gradient in each if gradient is not None]))
    together.mul_(2.0)
    torch.testing.assert_close(together[: each[0].numel()], each[0].flatten())  # type: ignore[union-attr]
    masters.clear()
    assert masters.gradients() == []
    assert not together.any()


def test_gradients_of_large_masters_come_one_by_one(monkeypatch):
    monkeypatch.setattr("danlu.models.masters.LAID_TOGETHER", 10)
    net = Net()
    masters = Masters(net, torch.bfloat16)
    net(batch(0, torch.bfloat16)).float().square().sum().backward()
    assert len(masters.gradients()) == len(masters.parameters)

"""What a forward keeps comes back as it went, once for all that keep it; weights stay."""

import gc
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from danlu.data.packing import Pack
from danlu.engine.offload import Offload
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy
from danlu.objectives.sft import SFT

CPU = torch.device("cpu")


def gradients(policy, pack, offload=None):
    policy.zero_grad()
    if offload is None:
        loss = SFT().loss({"policy": policy}, pack).total
    else:
        with offload:
            loss = SFT().loss({"policy": policy}, pack).total
    loss.backward()
    return {name: each.grad.clone() for name, each in policy.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("recomputed", [0, 2])
@pytest.mark.parametrize("adapter", [Lora(), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "moe"])
def test_gradients_are_the_same_to_the_bit(architecture, adapter, recomputed):
    policy = Policy(adapter.apply(build_model(ModelConfig(path=f"builtin:tiny-{architecture}")))).train()
    policy.recompute(recomputed)
    pack = Pack.of([(np.arange(n) % 200 + 5, np.ones(n, bool)) for n in (40, 24, 64)])
    offload = Offload(policy.state_dict().values(), CPU, smallest=1)
    torch.manual_seed(0)
    plain = gradients(policy, pack)
    for _ in range(2):  # storages of the first are given to the second
        torch.manual_seed(0)
        moved = gradients(policy, pack, offload)
        assert plain.keys() == moved.keys()
        assert all(torch.equal(plain[name], moved[name]) for name in plain)
        assert offload._parked


def test_weights_and_small_tensors_stay():
    weight, x = torch.randn(8, 8, requires_grad=True), torch.randn(2, 8, requires_grad=True)
    offload = Offload([weight], CPU, smallest=65)
    assert isinstance(offload.park(weight.T), torch.Tensor)
    assert isinstance(offload.park(x), torch.Tensor)  # 64 bytes
    assert isinstance(offload.park(torch.zeros(1).expand(1000)), torch.Tensor)
    assert not isinstance(offload.park(torch.zeros(1000)), torch.Tensor)


def test_a_tensor_that_many_keep_goes_once_and_one_that_changed_goes_again():
    offload = Offload([], CPU, smallest=1)
    x = torch.randn(64)
    first, second = offload.park(x), offload.park(x.view(8, 8).view(64))
    assert first[1] is second[1]
    before = x.clone()
    x.mul_(2)
    third = offload.park(x)
    assert third[1] is not first[1]
    assert torch.equal(offload.arrive(first), before)
    assert torch.equal(offload.arrive(third), x)


def test_the_memory_of_what_went_is_free():
    offload = Offload([], CPU, smallest=1)
    kept = offload.park(torch.randn(64))
    other = torch.randn(64)
    gc.collect()
    assert not torch.equal(offload.arrive(kept), other)
    assert offload.park(other)[1] is not kept[1]


def test_without_data_only_the_shape_comes_back():
    offload = Offload([], torch.device("meta"), smallest=1)
    back = offload.arrive(offload.park(torch.empty(3, 5, device="meta", dtype=torch.bfloat16)))
    assert (back.shape, back.dtype, back.is_meta) == ((3, 5), torch.bfloat16, True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_gradients_are_the_same_and_less_is_held():
    device = torch.device("cuda")
    policy = Policy(Full().apply(build_model(ModelConfig(path="builtin:tiny-llama"))).to(device)).train()
    pack = Pack.of([(np.arange(200) % 200 + 5, np.ones(200, bool)) for _ in range(64)]).to(device)
    offload = Offload(policy.state_dict().values(), device, smallest=1 << 12)
    plain, moved = gradients(policy, pack), gradients(policy, pack, offload)
    assert all(torch.allclose(plain[name], moved[name], rtol=1e-4, atol=1e-4) for name in plain)
    held = []
    for context in (nullcontext(), offload):
        before = torch.cuda.memory_allocated()
        with context:
            loss = SFT().loss({"policy": policy}, pack).total
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated() - before)
        del loss
    assert held[1] < 0.5 * held[0]

"""An MLP that takes some tokens at a time has the same outputs and gradients."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from danlu.data.packing import Pack
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.blocks import blocks_of
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.chunked_mlp import chunk_mlps, is_token_wise
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy
from danlu.objectives.sft import SFT

WITHOUT = {"bloom"}
"""its MLP takes the residual too"""
SOME = ["llama", "gemma2", "moe", "gpt2"]
EVERY = [each if each in SOME else pytest.param(each, marks=pytest.mark.slow) for each in ARCHITECTURES]


def gradients(policy, recomputed):
    policy.recompute(recomputed)
    pack = Pack.of([(np.arange(n) % 200 + 5, np.ones(n, bool)) for n in (40, 24, 64)])
    loss = SFT().loss({"policy": policy}, pack).total
    loss.backward()
    return loss.detach(), {name: each.grad for name, each in policy.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("recomputed", [0, 2])
@pytest.mark.parametrize("adapter", [Lora(), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("architecture", EVERY)
def test_gradients_are_exact(architecture, adapter, recomputed):
    config = ModelConfig(path=f"builtin:tiny-{architecture}")
    dtype = torch.float32 if architecture in ("moe", "mixtral") else torch.float64  # products by groups know no more
    plain = Policy(adapter.apply(build_model(config)).to(dtype)).train()
    for dropout in (module for module in plain.modules() if isinstance(module, nn.Dropout)):
        dropout.p = 0.0
    other = copy.deepcopy(plain)
    number = chunk_mlps(other.inner, 64, 30)
    assert number == (0 if architecture in WITHOUT else len(blocks_of(other.inner)[1]))
    (loss, expected), (again, found) = gradients(plain, recomputed), gradients(other, recomputed)
    bound = 1e-10 if dtype == torch.float64 else 1e-4
    assert torch.allclose(loss, again, rtol=bound)
    for name in expected:
        error = (found[name] - expected[name]).norm()
        assert error <= bound * expected[name].norm() + 1e-12, name


def test_chunks_are_of_so_many_tokens_and_short_inputs_are_whole():
    seen = []

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
            self.mlp[0].register_forward_hook(lambda module, given, output: seen.append(output.shape[-2]))

        def forward(self, x):
            return x + self.mlp(x)

    model = nn.Module()
    model.layers = nn.ModuleList([Block()])
    assert chunk_mlps(model, 8, 5) == 1
    seen.clear()
    with torch.no_grad():
        model.layers[0](torch.randn(1, 12, 8))
        model.layers[0](torch.randn(1, 4, 8))
    assert seen == [5, 5, 2, 4]


def test_what_mixes_tokens_is_left_alone():
    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.a(x) + self.b(x).mean(-2, keepdim=True)

    assert not is_token_wise(Mixes(), 8)
    assert not is_token_wise(nn.LayerNorm(8), 8)
    assert is_token_wise(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), 8)

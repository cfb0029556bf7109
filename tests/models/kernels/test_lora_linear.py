"""The fused LoRA layer is the plain one, and peft's own, in values and gradients."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from danlu.models.kernels.lora_linear import LoRALinear, plain_lora_linear

I, O, R = 6, 5, 3  # noqa: E741 - inputs, outputs, rank


def draw(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=[(4,), (2, 3), (1, 7), (2, 1, 3), (0,)], ids=str)
def x(request) -> Tensor:
    return draw(*request.param, I, seed=1).requires_grad_()


@pytest.fixture(params=[True, False], ids=["bias", "plain"])
def bias(request) -> Tensor | None:
    return draw(O, seed=3) if request.param else None


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.125])
def test_it_is_the_plain_layer(x, bias, scale):
    weight, a, b = draw(O, I, seed=2), draw(R, I, seed=4).requires_grad_(), draw(O, R, seed=5).requires_grad_()
    found, exact = (f(x, weight, bias, a, b, scale) for f in (LoRALinear.apply, plain_lora_linear))
    torch.testing.assert_close(found, exact)
    up = draw(*found.shape, seed=6)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, a, b), up), torch.autograd.grad(exact, (x, a, b), up), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences(bias):
    leaves = [draw(2, 3, I, seed=1), draw(R, I, seed=4), draw(O, R, seed=5)]
    weight = draw(O, I, seed=2)
    assert torch.autograd.gradcheck(
        lambda x, a, b: LoRALinear.apply(x, weight, bias, a, b, 0.7), [leaf.requires_grad_() for leaf in leaves]
    )


@pytest.mark.parametrize("learning", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_what_learns_gets_a_gradient(learning):
    leaves = [draw(4, I, seed=1), draw(R, I, seed=4), draw(O, R, seed=5)]
    x, a, b = (leaf.requires_grad_(learns) for leaf, learns in zip(leaves, learning, strict=True))
    LoRALinear.apply(x, draw(O, I, seed=2), None, a, b, 1.0).sum().backward()
    assert [leaf.grad is not None for leaf in leaves] == list(learning)


@pytest.mark.parametrize("rslora", [False, True])
def test_it_is_pefts_layer(x, bias, rslora):
    base = nn.Linear(I, O, bias=bias is not None, dtype=torch.float64)
    config = LoraConfig(r=R, lora_alpha=7, use_rslora=rslora)
    layer = PeftLinear(base, "default", config, r=R, lora_alpha=7).double()
    nn.init.normal_(layer.lora_B["default"].weight, generator=torch.Generator().manual_seed(9))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer(x)
    found = LoRALinear.apply(x, base.weight.detach(), base.bias, a, b, 7 / (R**0.5 if rslora else R))
    torch.testing.assert_close(found, exact)
    up = draw(*exact.shape, seed=6)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, a, b), up), torch.autograd.grad(exact, (x, a, b), up), strict=True
    ):
        torch.testing.assert_close(ours, theirs)

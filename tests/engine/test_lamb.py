"""LAMB and NVLAMB, against their formulas in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.optimizers.base import optimizers
from danlu.engine.step import norm_and_factor
from danlu.engine.training import Training

LR, BETAS, EPS = 0.1, (0.9, 0.999), 1e-6


class Reference:
    """NVIDIA's fused LAMB, one tensor, written down from its description."""

    def __init__(self, weight: Tensor, decay: float, everywhere: bool) -> None:
        self.w, self.decay, self.everywhere = weight.double().clone(), decay, everywhere
        self.m, self.v, self.t = torch.zeros_like(self.w), torch.zeros_like(self.w), 0

    def step(self, gradient: Tensor) -> float:
        """One update; returns the ratio that the step was scaled by."""
        g = gradient.double()
        self.t += 1
        self.m = BETAS[0] * self.m + (1 - BETAS[0]) * g
        self.v = BETAS[1] * self.v + (1 - BETAS[1]) * g * g
        m, v = self.m / (1 - BETAS[0] ** self.t), self.v / (1 - BETAS[1] ** self.t)
        u = m / (v.sqrt() + EPS) + self.decay * self.w
        norms = math.sqrt(float((self.w**2).sum())), math.sqrt(float((u**2).sum()))
        scaled = (self.everywhere or self.decay != 0) and min(norms) > 0
        ratio = norms[0] / norms[1] if scaled else 1.0
        self.w = self.w - LR * ratio * u
        return ratio


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("nvlamb", [False, True])
def test_it_is_the_formula(decay, nvlamb):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 7))
    reference = Reference(weight.detach(), decay, nvlamb)
    settings = optimizers["lamb"](lr=LR, weight_decay=decay, nvlamb=nvlamb)
    optimizer = settings.build(settings.groups([("weight", weight)]))
    ratios = []
    for _ in range(8):
        weight.grad = torch.randn(5, 7)
        ratios.append(reference.step(weight.grad))
        optimizer.step()
    torch.testing.assert_close(weight.detach().double(), reference.w, rtol=1e-5, atol=1e-6)
    assert all((ratio != 1) is (nvlamb or decay > 0) for ratio in ratios)


@pytest.mark.parametrize("nvlamb", [False, True])
def test_without_decay_nvlamb_moves_by_the_ratio_and_lamb_by_the_step_itself(nvlamb):
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(6, 4))
    before = weight.detach().clone()
    settings = optimizers["lamb"](lr=LR, weight_decay=0.0, nvlamb=nvlamb)
    optimizer = settings.build(settings.groups([("weight", weight)]))
    weight.grad = torch.randn(6, 4)
    step = weight.grad / (weight.grad.abs() + EPS)  # Adam's first: m = g, sqrt(v) = |g|
    optimizer.step()
    ratio = before.norm() / step.norm() if nvlamb else 1.0
    torch.testing.assert_close(before - weight.detach(), LR * ratio * step)


@pytest.mark.parametrize("weight", [torch.zeros(3, 2), torch.ones(3, 2)], ids=["no weight", "no gradient"])
def test_a_ratio_with_a_norm_of_zero_is_one(weight):
    parameter = nn.Parameter(weight.clone())
    settings = optimizers["lamb"](lr=LR, weight_decay=0.0, nvlamb=True)
    optimizer = settings.build(settings.groups([("weight", parameter)]))
    gradient = torch.ones(3, 2) if not weight.any() else torch.zeros(3, 2)
    parameter.grad = gradient
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), weight - LR * gradient / (gradient + EPS))


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_gradients_are_divided_by_their_norm_over_the_limit_once(limit):
    """What the engine does before the update is all of NVIDIA's division by max(1, |g| / max_grad_norm)."""
    torch.manual_seed(2)
    net = nn.ParameterDict({"a": torch.randn(4, 3), "b": torch.randn(2, 5)})
    optimizer = {"name": "lamb", "lr": LR, "nvlamb": True, "weight_decay": 0.01}
    engine = Engine(EngineConfig(device="cpu", precision="fp32", max_grad_norm=limit, optimizer=optimizer))
    references = {name: Reference(value.detach(), 0.01, True) for name, value in net.items()}
    training = Training(engine.config, {"policy": net}, torch.float32, 10, lambda name: 1.0)  # type: ignore[dict-item]
    for _ in range(4):
        gradients = {name: 3 * torch.randn_like(value) for name, value in net.items()}
        norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
        for name, gradient in gradients.items():
            net[name].grad = gradient.clone()
            references[name].step(gradient / max(1.0, norm / limit))
        _, factor = norm_and_factor(engine, training, 1.0)
        training.update_weights(factor)
    for name, reference in references.items():
        torch.testing.assert_close(net[name].detach().double(), reference.w, rtol=1e-4, atol=1e-5)

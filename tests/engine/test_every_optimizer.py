"""What every optimiser must do: lower a loss, and be saved and resumed to the same bits, 8-bit states too."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from danlu.core.errors import SetupError
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.optimizer_state import optimizer_state, restore_optimizer
from danlu.engine.optimizers.base import Optimizer, optimizers, set_lr

EIGHT_BITS = ["adamw8bit", "lion8bit", "lamb8bit"]
NAMES = sorted(optimizers)


def part(name: str, **settings) -> Optimizer:
    if name == "paged_adamw":
        settings = {"paged": False, **settings}
    return optimizers[name](**{"lr": 1e-2, "weight_decay": 0.1, **settings})


def weights(seed: int = 0) -> dict[str, nn.Parameter]:
    """A matrix large enough for 8 bits, a small one, a table and a vector."""
    torch.manual_seed(seed)
    shapes = {"up.weight": (96, 64), "down.weight": (3, 4), "embed_tokens.weight": (8, 4), "norm.weight": (64,)}
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def learn(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        for parameter in named.values():
            parameter.grad = torch.randn_like(parameter)
        set_lr(optimizer, 0.01 / (1 + seed))
        optimizer.step()


def bits(value):
    """A tree whose equality is that of types and bits."""
    if isinstance(value, Tensor):
        return (
            str(value.dtype),
            value.shape,
            value.detach().contiguous().view(torch.uint8).tolist() if value.ndim else value.item(),
        )
    if isinstance(value, dict):
        return {key: bits(one) for key, one in value.items()}
    return repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_it_resumes_to_the_same_bits(name, tmp_path):
    settings, ours = part(name), weights()
    optimizer = settings.build(settings.groups(ours.items()))
    learn(optimizer, ours, range(3))
    tensors, structure = optimizer_state(optimizer, {value: key for key, value in ours.items()})
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, tmp_path / "o.safetensors")
    resumed = {key: nn.Parameter(value.detach().clone()) for key, value in ours.items()}
    other = settings.build(settings.groups(resumed.items()))
    loaded = load_file(tmp_path / "o.safetensors"), json.loads(json.dumps(structure))
    restore_optimizer(other, {value: key for key, value in resumed.items()}, *loaded)
    settings.resumed(other)
    for each, named in ((optimizer, ours), (other, resumed)):
        learn(each, named, range(3, 6))
    for key, value in ours.items():
        assert torch.equal(value, resumed[key])
        assert bits(dict(optimizer.state[value])) == bits(dict(other.state[resumed[key]]))
    results = [{id(k): v for k, v in settings.results(each).items()} for each in (optimizer, other)]
    assert [bits(v) for v in results[0].values()] == [bits(v) for v in results[1].values()]


@pytest.mark.parametrize("name", NAMES)
def test_it_lowers_a_loss(name):
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Linear(64, 96), nn.Tanh(), nn.Linear(96, 4)), torch.randn(64, 64), torch.randn(64, 4)
    settings = part(name, weight_decay=0.0, lr=0.3 if name == "sgd" else 0.01)
    optimizer = settings.build(settings.groups(net.named_parameters()))
    losses = []
    for _ in range(30):
        loss = (net(x) - y).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_states_of_eight_bits_are_a_quarter(name):
    def state_bytes(name: str) -> int:
        settings, weight = part(name), nn.Parameter(torch.randn(512, 512))
        optimizer = settings.build(settings.groups([("weight", weight)]))
        learn(optimizer, {"weight": weight}, range(2))
        tensors, _ = optimizer_state(optimizer, {weight: "weight"})
        return sum(value.nbytes for value in tensors.values())

    assert state_bytes(name) == pytest.approx(state_bytes(name.removesuffix("8bit")) / 4, rel=0.03)


@pytest.mark.parametrize("name", EIGHT_BITS)
def test_states_of_eight_bits_learn_as_those_of_thirty_two(name):
    found = {}
    for each in (name, name.removesuffix("8bit")):
        settings, named = part(each), weights()
        learn(settings.build(settings.groups(named.items())), named, range(10))
        found[each] = named["up.weight"].detach() - weights()["up.weight"].detach()
    near, exact = found.values()
    assert 0 < (near - exact).norm() < 0.3 * exact.norm()


@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit", "paged_adamw"])
def test_pages_without_a_gpu_are_refused_before_a_model_is_loaded(name):
    with pytest.raises(SetupError, match=r"engine\.optimizer\.paged.*CUDA GPU.*cpu"):
        Engine(EngineConfig(device="cpu", optimizer={"name": name, "paged": True}))
    Engine(EngineConfig(device="cpu", optimizer={"name": name, "paged": False}))


def test_a_schedule_beside_an_optimizer_that_takes_none_is_refused():
    with pytest.raises(ValueError, match="schedule_free averages instead of lowering its rate; say schedule:"):
        EngineConfig(optimizer="schedule_free")
    EngineConfig(optimizer="schedule_free", schedule={"name": "constant", "warmup": 0.1})

"""One launch for a whole update gives what torch's AdamW gives; in Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.nonfinite import NonFinite
from danlu.engine.one_launch_adamw import OneLaunchAdamW
from danlu.engine.optimizer_state import optimizer_state, restore_optimizer
from danlu.engine.step import finite, norm_and_factor
from danlu.engine.training import Training
from danlu.models.kernels import adamw
from danlu.models.kernels.adamw import AdamWUpdate, Slot, plain_adamw_update

pytest.importorskip("triton")
HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
SHAPES = [(1,), (5, 7), (33, 70), (3000,)]
ROUNDED = torch.bfloat16 if HAS_GPU else torch.float32
"""the interpreter computes with numpy, which has no bf16"""
BETAS, EPS = (0.9, 0.95), 1e-8


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that a tensor takes several programs."""
    monkeypatch.setattr(adamw, "CHUNK", 2048)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def weights(seed: int = 0) -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=seed + n)) for n, shape in enumerate(SHAPES)]


def groups(parameters: list[nn.Parameter]) -> list[dict]:
    matrices = [each for each in parameters if each.ndim > 1]
    vectors = [each for each in parameters if each.ndim == 1]
    return [{"params": matrices, "lr": 0.02, "weight_decay": 0.1}, {"params": vectors, "lr": 0.01, "weight_decay": 0.0}]


def give(parameters: list[nn.Parameter], seed: int, factor: float = 1.0) -> None:
    for n, parameter in enumerate(parameters):
        parameter.grad = factor * random(*parameter.shape, seed=100 * seed + n)


def test_steps_are_torchs():
    mine, theirs = weights(), weights()
    optimizer, reference = OneLaunchAdamW(groups(mine), BETAS, EPS), AdamW(groups(theirs), betas=BETAS, eps=EPS)
    for step in range(4):
        give(mine, step, factor=8.0)
        give(theirs, step)
        if step == 2:
            mine[1].grad = theirs[1].grad = None  # one that nobody used
        optimizer.factor = torch.tensor(1 / 8, device=DEVICE)
        optimizer.step()
        reference.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_no_number_changes_nothing_and_is_not_counted():
    mine, theirs = weights(), weights()
    optimizer, reference = OneLaunchAdamW(groups(mine), BETAS, EPS), OneLaunchAdamW(groups(theirs), BETAS, EPS)
    for step, factor in enumerate([1.0, float("nan"), 1.0]):
        for parameters, one in ((mine, optimizer), (theirs, reference)):
            give(parameters, step)
            one.factor = torch.tensor(factor, device=DEVICE)
            if factor == factor or one is optimizer:
                one.step()
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one, other)
        assert optimizer.state[one]["step"] == reference.state[other]["step"] == 2


def test_copies_are_rounded_where_their_rows_lie():
    parameters = weights()
    wide = torch.full((33, 90), 7.0, dtype=ROUNDED, device=DEVICE)
    copies = [nn.Parameter(each.detach().to(ROUNDED)) for each in parameters]
    copies[2].data = wide[:, 10:80]
    optimizer = OneLaunchAdamW(groups(parameters), BETAS, EPS)
    optimizer.copies = dict(zip(parameters, copies, strict=True))
    give(parameters, 1)
    optimizer.step()
    for one, copy in zip(parameters, copies, strict=True):
        assert torch.equal(one.detach().to(ROUNDED), copy.detach())
    assert (wide[:, :10] == 7).all()
    assert (wide[:, 80:] == 7).all()


@pytest.mark.parametrize("there", [True, False])
def test_a_run_goes_on_with_torchs_own_and_back(there):
    def build(parameters: list[nn.Parameter], *, ours: bool) -> AdamW:
        made = groups(parameters)
        return OneLaunchAdamW(made, BETAS, EPS) if ours else AdamW(made, betas=BETAS, eps=EPS, fused=True)

    first, alone = weights(), weights()
    before, expected = build(first, ours=there), AdamW(groups(alone), betas=BETAS, eps=EPS)
    give(first, 0), before.step()
    tensors, structure = optimizer_state(before, {each: str(n) for n, each in enumerate(first)})
    after = build(first, ours=not there)
    restore_optimizer(after, {each: str(n) for n, each in enumerate(first)}, tensors, structure)
    assert all(group["fused"] is (True if there else None) for group in after.param_groups)
    if not there:
        assert all(state["step"].device.type == "cpu" for state in after.state.values())
    give(first, 1), after.step()
    for step in range(2):
        give(alone, step), expected.step()
    for one, other in zip(first, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [0.25, float("nan")])
def test_the_kernel_is_its_plain_twin(factor):
    def slots() -> list[Slot]:
        made = [[random(*shape, seed=n) for n in range(4)] for shape in SHAPES]
        rates = [(3 + n, 0.1 / (1 + n), 0.01 * n) for n in range(len(SHAPES))]
        tensors = [(p, g, m, v.abs(), p.to(ROUNDED, copy=True)) for p, g, m, v in made]
        return [Slot(*each, *own) for each, own in zip(tensors, rates, strict=True)]

    mine, plain = slots(), slots()
    AdamWUpdate(BETAS, EPS)(mine, torch.tensor(factor, device=DEVICE))
    plain_adamw_update(plain, BETAS, EPS, torch.tensor(factor, device=DEVICE))
    for one, other in zip(mine, plain, strict=True):
        for name in ("value", "mean", "square"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name))
        torch.testing.assert_close(one.copy, other.copy, rtol=1e-2 if HAS_GPU else 1e-5, atol=1e-5)


def trained(monkeypatch, *, ours: bool) -> tuple[Training, Engine, nn.ParameterDict]:
    monkeypatch.setattr("danlu.engine.optimizers.adamw.runs_kernels", lambda x: ours)
    net = nn.ParameterDict({str(n): each.detach() for n, each in enumerate(weights())})
    engine = Engine(EngineConfig(device=DEVICE.type, precision="fp32", max_grad_norm=0.5))
    training = Training(engine.config, {"policy": net}, torch.float32, 10, lambda name: 1.0)  # type: ignore[dict-item]
    assert training.updates.leaves_bad_steps_out is ours
    training.progress.step = 3  # past the warm-up's first step
    return training, engine, net


def test_the_engines_step_is_the_same_and_a_bad_one_leaves_all_as_it_was(monkeypatch):
    runs = [trained(monkeypatch, ours=ours) for ours in (True, False)]
    for training, engine, net in runs:
        for step in range(3):
            give(list(net.values()), step)
            norm, factor = norm_and_factor(engine, training, 7.0)
            finite(norm, [])
            training.update_weights(factor)
    for one, other in zip(runs[0][2].values(), runs[1][2].values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    training, engine, net = runs[0]
    before = [each.detach().clone() for each in net.values()]
    give(list(net.values()), 9)
    net["1"].grad[2] = torch.inf
    norm, factor = norm_and_factor(engine, training, 7.0)
    training.update_weights(factor)
    with pytest.raises(NonFinite):
        finite(norm, list[Pack]())
    assert all(torch.equal(one, other) for one, other in zip(net.values(), before, strict=True))

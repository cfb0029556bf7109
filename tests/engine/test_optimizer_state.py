"""An optimiser's state goes through files bit for bit, and training goes on as if nothing had happened."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from danlu.core.errors import CheckpointError
from danlu.engine.optimizer_state import optimizer_state, restore_optimizer

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw_amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adamax": lambda p: torch.optim.Adamax(p),
    "nadam": lambda p: torch.optim.NAdam(p),
    "radam": lambda p: torch.optim.RAdam(p),
    "asgd": lambda p: torch.optim.ASGD(p),
    "rprop": lambda p: torch.optim.Rprop(p),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "adafactor": lambda p: torch.optim.Adafactor(p),
    "muon": lambda p: torch.optim.Muon([q for q in p if q.ndim == 2]),
}


def weights(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, dtype=dtype)) for name, shape in {"a": (3, 4), "b": (4,)}.items()}


def step(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in named.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def names(named: dict[str, nn.Parameter]) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in named.items()}


def through_files(folder: Path, tensors: dict, state: dict) -> tuple[dict, dict]:
    save_file(tensors, folder / "o.safetensors")
    return load_file(folder / "o.safetensors"), json.loads(json.dumps(state))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_optimizer_does_what_it_would_have_done(make, dtype, tmp_path):
    ours = weights(dtype)
    optimizer = make(list(ours.values()))
    for seed in range(3):
        step(optimizer, ours, seed)
    tensors, state = through_files(tmp_path, *optimizer_state(optimizer, names(ours)))
    resumed = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in ours.items()}
    other = make(list(resumed.values()))
    restore_optimizer(other, names(resumed), tensors, state)
    assert_same_bits(optimizer, other, ours, resumed)
    for seed in range(3, 6):
        step(optimizer, ours, seed)
        step(other, resumed, seed)
    assert all(torch.equal(ours[name], resumed[name]) for name in ours)
    assert_same_bits(optimizer, other, ours, resumed)


def assert_same_bits(one: torch.optim.Optimizer, two: torch.optim.Optimizer, ours: dict, resumed: dict) -> None:
    for name in ours:
        before, after = one.state[ours[name]], two.state[resumed[name]]
        assert list(before) == list(after)
        for key, value in before.items():
            assert type(value) is type(after[key])
            if isinstance(value, torch.Tensor):
                assert (value.dtype, value.shape, value.device) == (
                    after[key].dtype,
                    after[key].shape,
                    after[key].device,
                )
                assert torch.equal(value, after[key])
            else:
                assert value == after[key]
    for before, after in zip(one.param_groups, two.param_groups, strict=True):
        assert {k: v for k, v in before.items() if k != "params"} == {k: v for k, v in after.items() if k != "params"}


def test_moments_keep_their_own_dtype(tmp_path):
    """A bf16 weight with fp32 moments and 8-bit codes: torch's own load_state_dict would cast the moments."""
    named = weights(torch.bfloat16)
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    optimizer.state[named["a"]] = {
        "exp_avg": torch.randn(3, 4), "codes": torch.randint(0, 256, (3, 4), dtype=torch.uint8),
        "step": 7, "scale": 0.1 + 0.2, "name": "x", "nothing": None, "done": True,
        "nested": {"blocks": [torch.tensor(1.5), (1, torch.ones(2, dtype=torch.float64))], 3: "int key"},
    }  # fmt: skip
    tensors, state = through_files(tmp_path, *optimizer_state(optimizer, names(named)))
    resumed = weights(torch.bfloat16)
    other = torch.optim.SGD(resumed.values(), lr=0.5)
    restore_optimizer(other, names(resumed), tensors, state)
    torch.set_printoptions(precision=12)
    assert repr(other.state[resumed["a"]]) == repr(optimizer.state[named["a"]])  # types, dtypes and values
    assert other.param_groups[0]["lr"] == 0.1


def test_a_tensor_that_all_parameters_share_is_written_once(tmp_path):
    named = weights(torch.float32)
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    codes = torch.linspace(-1, 1, 256)
    for parameter in named.values():
        optimizer.state[parameter] = {"codes": codes}
    tensors, state = through_files(tmp_path, *optimizer_state(optimizer, names(named)))
    assert len(tensors) == 1
    restore_optimizer(optimizer, names(named), tensors, state)
    assert all(torch.equal(optimizer.state[parameter]["codes"], codes) for parameter in named.values())
    assert len({id(optimizer.state[parameter]["codes"]) for parameter in named.values()}) == 1


def test_neither_the_order_of_parameters_nor_of_groups_matters(tmp_path):
    ours = weights(torch.float32)
    optimizer = torch.optim.Adam([{"params": [ours["a"]], "lr": 0.1}, {"params": [ours["b"]], "lr": 0.2}])
    step(optimizer, ours, 0)
    saved = through_files(tmp_path, *optimizer_state(optimizer, names(ours)))
    resumed = weights(torch.float32)
    other = torch.optim.Adam([{"params": [resumed["b"]]}, {"params": [resumed["a"]]}], lr=1.0)
    restore_optimizer(other, names(resumed), *saved)
    assert [group["lr"] for group in other.param_groups] == [0.2, 0.1]
    assert torch.equal(other.state[resumed["a"]]["exp_avg"], optimizer.state[ours["a"]]["exp_avg"])


def test_other_parameters_are_refused_by_name():
    ours = weights(torch.float32)
    saved = optimizer_state(torch.optim.SGD(ours.values(), lr=0.1), names(ours))
    more = ours | {"c": nn.Parameter(torch.zeros(1))}
    with pytest.raises(CheckpointError, match=r"it lacks \['c'\]"):
        restore_optimizer(torch.optim.SGD(more.values(), lr=0.1), names(more), *saved)
    less = {"a": ours["a"]}
    with pytest.raises(CheckpointError, match=r"it has \['b'\] too"):
        restore_optimizer(torch.optim.SGD(less.values(), lr=0.1), names(less), *saved)


def test_what_cannot_be_written_plainly_is_refused():
    ours = weights(torch.float32)
    optimizer = torch.optim.SGD(ours.values(), lr=0.1)
    optimizer.state[ours["a"]] = {"hook": print}
    with pytest.raises(CheckpointError, match=r"a\.hook.*builtin_function"):
        optimizer_state(optimizer, names(ours))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=plain)
@settings(max_examples=100, deadline=None)
def test_any_plain_value_comes_back_as_it_was(value):
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.state[weight]["value"] = value
    tensors, state = optimizer_state(optimizer, {weight: "w"})
    restore_optimizer(optimizer, {weight: "w"}, tensors, json.loads(json.dumps(state)))
    assert repr(optimizer.state[weight]["value"]) == repr(value)

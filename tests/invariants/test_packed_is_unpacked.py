"""Packing changes nothing: logits and gradients of a pack are those of its segments read alone."""

import pytest
import torch
from torch import Tensor

from danlu.data.packing import Pack
from danlu.models.adapters.full import Full
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy

LENGTHS = [3, 17, 8, 8, 1, 30]


def random_pack(vocabulary: int, lengths: list[int] = LENGTHS) -> Pack:
    draw = torch.Generator().manual_seed(7)
    rows = [torch.randint(3, vocabulary, (n,), generator=draw).numpy() for n in lengths]
    return Pack.of([(ids, torch.rand(len(ids), generator=draw).numpy() > 0.3) for ids in rows])


def reference_loss(model: torch.nn.Module, pack: Pack) -> Tensor:
    """The summed loss of each segment on its own, by the model's own logits and torch's cross-entropy in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for ids, targets in zip(pack.input_ids.split(pack.lengths), pack.targets.split(pack.lengths), strict=True):
        logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
        total = total + torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return total


def gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_and_gradients_of_a_pack_are_those_of_its_segments(name):
    model = Full().apply(build_model(ModelConfig(path=f"builtin:tiny-{name}"), torch.float32)).eval()
    pack = random_pack(model.config.vocab_size)
    expected = gradients(model, reference_loss(model, pack))
    alone = torch.cat([model(input_ids=ids[None]).logits[0] for ids in pack.input_ids.split(pack.lengths)])

    policy = Policy(model)
    torch.testing.assert_close(policy.logits(pack), alone, rtol=1e-5, atol=1e-5)
    found = gradients(model, -policy.logprobs(pack).sum())
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        scale = gradient.abs().max().clamp_min(1e-3)
        assert (found[parameter] - gradient).abs().max() <= 1e-5 * scale, parameter

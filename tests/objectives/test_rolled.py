"""Objectives over a policy's own answers: advantages and losses are the papers' in float64; so are the gradients."""

import pytest
import torch
from torch import Tensor

from danlu.data.packing import Pack, refit
from danlu.models.adapters import adapters
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy
from danlu.objectives import objectives
from danlu.objectives._answers import ADVANTAGES, LOGPS, REFERENCE, Row, asks_in, packs_of, tell, told
from tests.models.test_policy import assert_same_gradients
from tests.objectives.conftest import gradients, stir

REWARDS = [{"name": "length", "most": 9}]
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]
ANSWERS = [[20, 21, 22], [23], [24, 25, 26, 27, 28], [29, 30], [31, 32, 33], [34, 35, 36, 37]]
"""three to each prompt"""
WORTH = torch.tensor([[1.0, 0.0, 0.5], [2.0, 2.0, -1.0]], dtype=torch.float64)


def objective(name: str, **settings):
    return objectives[name].model_validate({"rewards": REWARDS, "group": 3, "max_tokens": 8} | settings)


def policy_of(*, moved: bool) -> Policy:
    policy = Policy(adapters["full"]().apply(build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32))).eval()
    if moved:
        stir(policy.model)
    return policy


def answered(settings: dict, name: str) -> tuple[list[Row], Policy]:
    """Answers that one policy has drawn, with a reference, and another policy that learns from them."""
    chosen = objective(name, **settings)
    rows = [Row(PROMPTS[n // 3], ids, "", "", n) for n, ids in enumerate(ANSWERS)]
    drawn, reference, policy = policy_of(moved=False), policy_of(moved=False), policy_of(moved=True)
    stir(drawn.model, seed=5)
    tell(rows, 100, lambda pack: {LOGPS: chosen.logps(drawn, pack)})
    tell(rows, 100, lambda pack: {REFERENCE: chosen.logps(reference, pack)})
    for row, advantages in zip(rows, chosen.credit(WORTH, rows), strict=True):
        row.told[ADVANTAGES] = advantages
    return rows, policy


def shifted(rows: list[Row]) -> list[Row]:
    """Advantages whose sum is not nearly 0, so that a loss has digits to compare."""
    for row in rows:
        row.told[ADVANTAGES] = [one + 0.75 for one in row.told[ADVANTAGES]]
    return rows


def logps_of(model, row: Row, temperature: float) -> Tensor:
    """[n] float64, of one answer read alone."""
    ids = torch.tensor([row.prompt + row.ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(-1, ids[0, len(row.prompt) :, None])[:, 0]


def clipped(ratio: Tensor, advantage: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def k3(now: Tensor, reference: Tensor) -> Tensor:
    return (reference - now).exp() - (reference - now) - 1


# now, drawn, reference: [n] of each answer; a: its advantages, [n]
EXPECTED = {
    "grpo": ({}, lambda now, drawn, ref, a: clipped((now - drawn).exp(), a).mean(), 6),
    "grpo beta": (
        {"beta": 0.3, "temperature": 0.7},
        lambda now, drawn, ref, a: (clipped((now - drawn).exp(), a) + 0.3 * (now - drawn).exp() * k3(now, ref)).mean(),
        6,
    ),
    "grpo biased": (
        {"beta": 0.3, "unbiased_divergence": False},
        lambda now, drawn, ref, a: (clipped((now - drawn).exp(), a) + 0.3 * k3(now, ref)).mean(),
        6,
    ),
    "grpo answers": (
        {"ratio": "answer", "clip_low": 0.02, "clip_high": 0.03},
        lambda now, drawn, ref, a: clipped((now - drawn).mean().exp(), a, 0.02, 0.03).mean(),
        6,
    ),
    "dr_grpo": ({}, lambda now, drawn, ref, a: clipped((now - drawn).exp(), a).sum() / 8, 6),
    "dapo": ({}, lambda now, drawn, ref, a: clipped((now - drawn).exp(), a, 0.2, 0.28).sum(), 18),
    "cispo": (
        {"clip_high": 0.1},
        lambda now, drawn, ref, a: (-(now - drawn).exp().clamp(max=1.1).detach() * a * now).sum(),
        18,
    ),
    "rloo": ({"beta": 0.05}, lambda now, drawn, ref, a: clipped((now - drawn).sum().exp(), a).mean(), 6),
    "reinforce_plus_plus": (
        {"beta": 0.05},
        lambda now, drawn, ref, a: clipped((now - drawn).exp(), a).sum(),
        18,
    ),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_losses_and_gradients_are_the_papers_in_float64(case):
    settings, formula, count = EXPECTED[case]
    name = case.partition(" ")[0]
    rows, policy = answered(settings, name)
    chosen = objective(name, **settings)
    [pack] = packs_of(shifted(rows), 1000)
    loss = chosen.loss({"policy": policy}, pack)
    found = gradients(policy.model, loss.total)
    policy.model.double()
    expected = torch.zeros((), dtype=torch.float64)
    for row in rows:
        drawn, reference, advantages = (torch.tensor(row.told[key]).double() for key in (LOGPS, REFERENCE, ADVANTAGES))
        expected = expected + formula(logps_of(policy.model, row, chosen.temperature), drawn, reference, advantages)
    assert loss.count == count
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=1e-8)
    assert_same_gradients(found, gradients(policy.model, expected), rtol=2e-5)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "cispo", "rloo", "reinforce_plus_plus"])
def test_any_packs_of_a_step_are_one_batch(name):
    rows, policy = answered({}, name)
    chosen, rows = objective(name), shifted(rows)
    totals = []
    for packs in (packs_of(rows, 1000), packs_of(rows, 9), refit(packs_of(rows, 9), 14)):
        losses = [chosen.loss({"policy": policy}, pack) for pack in packs]
        totals.append((float(sum(loss.total.detach() for loss in losses)), sum(loss.count for loss in losses)))
    for total, count in totals[1:]:
        assert total == pytest.approx(totals[0][0], rel=1e-5)
        assert count == totals[0][1]


def test_advantages_are_the_papers():
    given = torch.tensor([[1.0, 0.0, 0.5], [0.3, 0.3, 0.3], [0.1, 0.1, 0.2]], dtype=torch.float64)
    a, _, c = given
    grpo = objective("grpo").advantages(given)
    torch.testing.assert_close(grpo[0], (a - 0.5) / (0.5 + 1e-4))
    torch.testing.assert_close(grpo[2], (c - c.mean()) / (c.std() + 1e-4))
    torch.testing.assert_close(objective("dapo").advantages(given), grpo)
    torch.testing.assert_close(objective("dr_grpo").advantages(given)[0], a - 0.5)
    torch.testing.assert_close(objective("grpo", scale="none").advantages(given)[2], c - c.mean())
    torch.testing.assert_close(objective("grpo", scale="batch").advantages(given)[0], (a - 0.5) / (given.std() + 1e-4))
    torch.testing.assert_close(
        objective("rloo").advantages(given)[0], torch.tensor([0.75, -0.75, 0.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "cispo", "rloo", "reinforce_plus_plus"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e9, -7.7])
def test_equal_rewards_teach_exactly_nothing(name, value):
    rows, policy = answered({}, name)
    chosen = objective(name)
    for row, advantages in zip(rows, chosen.credit(torch.full((2, 3), value).double(), rows), strict=True):
        assert advantages == [0.0] * len(row.ids)
        row.told[ADVANTAGES] = advantages
    [pack] = packs_of(rows, 1000)
    loss = chosen.loss({"policy": policy}, pack)
    assert loss.total.item() == 0
    assert all(not gradient.any() for gradient in gradients(policy.model, loss.total).values())


def test_penalties_are_part_of_the_rewards():
    rows, _ = answered({"beta": 0.5}, "rloo")
    costs = [
        0.5 * (torch.tensor(row.told[LOGPS]).double() - torch.tensor(row.told[REFERENCE]).double()) for row in rows
    ]
    left = WORTH - torch.stack([cost.sum() for cost in costs]).reshape(2, 3)
    others = (left.sum(1, keepdim=True) - left) / 2
    found = [row.told[ADVANTAGES][0] for row in rows]
    assert found == pytest.approx((left - others).flatten().tolist(), rel=1e-9)

    rows, _ = answered({"beta": 0.5}, "reinforce_plus_plus")
    returns = torch.cat(
        [
            torch.stack([reward - cost[n:].sum() for n in range(len(cost))])
            for reward, cost in zip(WORTH.flatten(), costs, strict=True)
        ]
    )
    expected = (returns - returns.mean()) / returns.std(correction=0)
    assert [one for row in rows for one in row.told[ADVANTAGES]] == pytest.approx(expected.tolist(), rel=1e-6)


def test_the_first_pass_needs_no_memory_of_how_answers_were_drawn():
    rows, policy = answered({}, "grpo")
    tell(rows, 100, lambda pack: {LOGPS: objective("grpo").logps(policy, pack)})
    with_memory = objective("grpo").loss({"policy": policy}, packs_of(rows, 100)[0])
    for row in rows:
        del row.told[LOGPS]
    without = objective("grpo").loss({"policy": policy}, packs_of(rows, 100)[0])
    torch.testing.assert_close(with_memory.total, without.total, rtol=1e-6, atol=1e-7)
    assert_same_gradients(gradients(policy.model, with_memory.total), gradients(policy.model, without.total), rtol=1e-5)


def test_what_counts_nothing_is_still_an_answer_among_others():
    rows, policy = answered({}, "grpo")
    shifted(rows)[2].counts = False
    [pack] = packs_of(rows, 1000)
    some = objective("grpo").loss({"policy": policy}, pack)
    rest = packs_of([row for row in rows if row.counts], 1000)[0]
    torch.testing.assert_close(some.total, objective("grpo").loss({"policy": policy}, rest).total, rtol=1e-6, atol=0)
    assert some.count == 6
    assert objective("dapo").loss({"policy": policy}, pack).count == 13


def test_what_is_told_comes_back_from_json_to_the_bit():
    rows, _ = answered({}, "grpo")
    again = [Row(**row.to_json()) for row in rows]
    for before, after in zip(packs_of(rows, 12), packs_of(again, 12), strict=True):
        for name in (LOGPS, ADVANTAGES, REFERENCE):
            assert torch.equal(told(before, name), told(after, name))
        assert torch.equal(before.input_ids, after.input_ids)


def test_a_prompt_ends_where_the_last_answer_begins():
    def mask(text: str):
        return torch.tensor([letter == "a" for letter in text]).numpy()

    def ids(start: int, count: int):
        return torch.arange(start, start + count).numpy()

    pack = Pack.of([(ids(0, 7), mask("ppaapaa")), (ids(10, 3), mask("ppp")), (ids(20, 4), mask("paat"))])
    asks = asks_in([pack, pack])
    assert [ask.ids for ask in asks] == [[0, 1, 2, 3, 4], [10, 11, 12], [20]] * 2
    assert [ask.expected for ask in asks[:3]] == [[5, 6], None, [21, 22]]

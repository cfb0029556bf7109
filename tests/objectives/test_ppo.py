"""PPO against its papers in float64: advantages, penalties, both losses and all gradients, whatever the packs."""

import math

import pytest
import torch
from torch import nn

from danlu.data.packing import Segment, refit
from danlu.engine.planner.planner import OutlineBuilder
from danlu.generate.writers.base import Draft
from danlu.models.adapters import adapters
from danlu.models.critic import Critic
from danlu.models.load import ModelConfig
from danlu.models.policy import Policy
from danlu.objectives._advantage import Running, estimated
from danlu.objectives._answers import ADVANTAGES, LOGPS, REFERENCE, Ask, Row, packs_of, tell
from danlu.objectives._kl_control import corrected
from danlu.objectives._rollout import Rollout
from danlu.objectives.ppo import RETURNS, VALUES, Proximal
from danlu.rewards.base import Answer
from tests.models.test_policy import assert_same_gradients
from tests.objectives.conftest import gradients, stir
from tests.objectives.test_rolled import ANSWERS, PROMPTS, k3, logps_of, objective, policy_of

WORTH = [1.0, -2.0, 0.5, 3.0, 0.25, -0.75]
CUT_OFF = [False, True, False, False, True, False]


def critic_of(policy: Policy, seed: int) -> Critic:
    critic = Critic(policy)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += torch.randn(parameter.shape, generator=draw)
    return critic


def running(**settings) -> Proximal:
    """A run of PPO in which nobody writes or judges."""
    ppo = objective("ppo", group=1, **settings)
    run = object.__new__(Proximal)
    run.rolled = run.ppo = run.objective = ppo
    run.beta, run.rewards, run.last = ppo.beta, Running(), {}
    return run


def rollout(worth=WORTH) -> Rollout:
    finishes = ["length" if cut else "stop" for cut in CUT_OFF]
    answers = [Answer("", "", None, finish, [1], ids, "") for ids, finish in zip(ANSWERS, finishes, strict=True)]
    drafts = [Draft(ids, "stop") for ids in ANSWERS]
    asks = [Ask(PROMPTS[n // 3], None, Segment("", "", n)) for n in range(6)]
    return Rollout(asks, answers, torch.tensor(worth, dtype=torch.float64)[:, None], {}, drafts, {})


def written(run: Proximal) -> tuple[list[Row], Policy, Critic]:
    """Answers as they were drawn and credited, and a policy and a critic that have moved since."""
    rows = [Row(PROMPTS[n // 3], ids, "", "", n) for n, ids in enumerate(ANSWERS)]
    drawn, reference, policy = policy_of(moved=False), policy_of(moved=False), policy_of(moved=True)
    stir(drawn.model, seed=5)
    tell(rows, 100, lambda pack: run.ppo.expected({"policy": drawn, "critic": critic_of(drawn, 1)}, pack))
    tell(rows, 100, lambda pack: {REFERENCE: run.ppo.logps(reference, pack)})
    for row, advantages in zip(rows, run.credit(rollout(), rows), strict=True):
        row.told[ADVANTAGES] = advantages
    return rows, policy, critic_of(policy, 2)


def naive(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """The paper's sum, (16): every later error of the values, each less the later it comes."""
    ahead = [*values[1:], 0.0]
    return [
        sum(
            (gamma * lam) ** (later - now) * (rewards[later] + gamma * ahead[later] - values[later])
            for later in range(now, len(rewards))
        )
        for now in range(len(rewards))
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.97, 0.0)])
def test_advantages_are_the_papers_sum(gamma, lam):
    draw = torch.Generator().manual_seed(0)
    for count in (1, 2, 17):
        rewards, values = torch.randn(2, count, generator=draw, dtype=torch.float64)
        found = estimated(rewards, values, gamma, lam)
        assert found.tolist() == pytest.approx(naive(rewards.tolist(), values.tolist(), gamma, lam), rel=1e-12)


def penalty(kind: str, drawn: float, reference: float) -> float:
    ratio = math.exp(drawn - reference)
    return {"k1": math.log(ratio), "k2": math.log(ratio) ** 2 / 2, "k3": 1 / ratio - 1 + math.log(ratio)}[kind]


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_rewards_are_penalties_at_each_token_and_the_answers_at_its_last(kind):
    settings = {"beta": 0.3, "divergence": kind, "gamma": 0.9, "lam": 0.7, "whiten": False, "no_end_penalty": 0.5}
    run = running(**settings, reward_baseline=0.1, reward_clip=1.5)
    rows, _, _ = written(run)
    for row, reward, cut in zip(rows, WORTH, CUT_OFF, strict=True):
        costs = [penalty(kind, *pair) for pair in zip(row.told[LOGPS], row.told[REFERENCE], strict=True)]
        rewards = [-0.3 * cost for cost in costs]
        rewards[-1] += min(max(reward - 0.1, -1.5), 1.5) - 0.5 * cut
        expected = naive(rewards, row.told[VALUES], 0.9, 0.7)
        assert row.told[ADVANTAGES] == pytest.approx(expected, rel=1e-6)
        returns = [a + v for a, v in zip(expected, row.told[VALUES], strict=True)]
        assert row.told[RETURNS] == pytest.approx(returns, rel=1e-6)
    total = sum(penalty(kind, *pair) for row in rows for pair in zip(row.told[LOGPS], row.told[REFERENCE], strict=True))
    assert run.last["kl"] == pytest.approx(total / 6)


def test_whitened_advantages_have_no_mean_and_a_deviation_of_one_over_what_counts():
    run, plain = running(), running(whiten=False)
    rows, _, _ = written(run)
    others, _, _ = written(plain)
    found = torch.tensor([one for row in rows for one in row.told[ADVANTAGES]], dtype=torch.float64)
    every = torch.tensor([one for row in others for one in row.told[ADVANTAGES]], dtype=torch.float64)
    torch.testing.assert_close(found, (every - every.mean()) / every.std(correction=0))
    rows[0].counts = False
    some = run.credit(rollout(), rows)[1:]
    left = torch.tensor([one for part in some for one in part], dtype=torch.float64)
    assert float(left.mean()) == pytest.approx(0, abs=1e-12)
    assert float(left.std(correction=0)) == pytest.approx(1)


def test_rewards_are_measured_in_deviations_of_all_so_far():
    run, seen = running(reward_scale=True), []
    for worth in ([3.0, 1.0, 2.0, 5.0, 4.0, 0.0], [100.0, -3.0, 7.0, 7.0, 0.5, 1e3]):
        seen += worth
        deviation = torch.tensor(seen, dtype=torch.float64).std()
        assert run.worth(rollout(worth)) == pytest.approx((torch.tensor(worth) / deviation).tolist())
        again = running(reward_scale=True)
        again.remember(run.kept())
        assert again.kept() == run.kept()
    assert running(reward_scale=True).worth(rollout([2.0] * 6)) == [2.0] * 6


def test_the_controller_is_the_papers():
    assert corrected(0.2, kl=9.0, target=6.0, weight=0.1) == pytest.approx(0.2 * (1 + 0.1 * 0.2))
    assert corrected(0.2, kl=6.6, target=6.0, weight=0.1) == pytest.approx(0.2 * (1 + 0.1 * 0.1))
    assert corrected(0.2, kl=0.0, target=6.0, weight=0.1) == pytest.approx(0.2 * (1 - 0.1 * 0.2))
    run = running(kl_controller="adaptive", kl_target=0.01, kl_horizon=60, beta=0.3, divergence="k3")
    written(run)
    assert run.last["kl"] > 0.012
    assert run.last["kl_coefficient"] == 0.3
    assert run.beta == run.kept()["beta"] == pytest.approx(0.3 * (1 + 0.2 * 6 / 60))


def states_of(model, row: Row) -> torch.Tensor:
    """[n,H] what each token of an answer is told from."""
    ids = torch.tensor([row.prompt + row.ids])
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(row.prompt) - 1 : -1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"value_clip": None}, {"value_weight": 0.7, "temperature": 0.7, "clip_low": 0.1, "clip_high": 0.3}],
    ids=["usual", "values unclipped", "others"],
)
def test_losses_and_gradients_are_the_papers_in_float64(settings):
    run = running(**settings)
    ppo = run.ppo
    rows, policy, critic = written(run)
    for row in rows:
        row.told[ADVANTAGES] = [one + 0.75 for one in row.told[ADVANTAGES]]
    [pack] = packs_of(rows, 1000)
    both = nn.ModuleDict({"policy": policy, "critic": critic})
    loss = ppo.loss({"policy": policy, "critic": critic}, pack)
    found = gradients(both, loss.total)
    both.double()
    expected, value_part, clipped = torch.zeros((), dtype=torch.float64), 0.0, 0
    for row in rows:
        drawn, before, returns, a = (
            torch.tensor(row.told[key], dtype=torch.float64) for key in (LOGPS, VALUES, RETURNS, ADVANTAGES)
        )
        ratio = (logps_of(policy.model, row, ppo.temperature) - drawn).exp()
        lowest, highest = 1 - ppo.clip_low, 1 + ppo.clip_high
        gain = torch.where(
            a > 0, torch.where(ratio > highest, highest, ratio) * a, torch.where(ratio < lowest, lowest, ratio) * a
        )
        values = nn.functional.linear(states_of(policy.model, row), critic.summary.weight, critic.summary.bias)[:, 0]
        squared = (values - returns) ** 2
        if ppo.value_clip is not None:
            held = torch.stack([(before - ppo.value_clip), values]).amax(0)
            held = torch.stack([(before + ppo.value_clip), held]).amin(0)
            clipped += int(((held - returns) ** 2 > squared).sum())
            squared = torch.where((held - returns) ** 2 > squared, (held - returns) ** 2, squared)
        expected = expected - gain.sum() + ppo.value_weight * 0.5 * squared.sum()
        value_part += 0.5 * float(squared.detach().sum())
    assert loss.count == sum(map(len, ANSWERS))
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=1e-8)
    assert float(loss.metrics["value_loss"][0]) == pytest.approx(value_part, rel=1e-5)
    assert float(loss.metrics["values_clipped"][0]) == clipped
    assert_same_gradients(found, gradients(both, expected), rtol=2e-5)
    assert any(name.startswith("critic") for name in found)


def test_any_packs_of_a_step_are_one_batch():
    run = running()
    rows, policy, critic = written(run)
    sums = []
    for packs in (packs_of(rows, 1000), packs_of(rows, 9), refit(packs_of(rows, 9), 14)):
        losses = [run.ppo.loss({"policy": policy, "critic": critic}, pack) for pack in packs]
        sums.append([float(sum(loss.total.detach() for loss in losses)), sum(loss.count for loss in losses)])
        names = ("value_loss", "clipped", "drift", "entropy")
        sums[-1] += [float(sum(loss.metrics[name][0] for loss in losses)) for name in names]
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)
    assert sums[2] == pytest.approx(sums[0], rel=1e-5)
    narrow, wide = ([Row(*fields) for fields in bare(rows)] for _ in range(2))
    for some, capacity in ((narrow, 9), (wide, 1000)):
        tell(some, capacity, lambda pack: run.ppo.expected({"policy": policy, "critic": critic}, pack))
    for one, other in zip(narrow, wide, strict=True):
        assert one.told[VALUES] == pytest.approx(other.told[VALUES], rel=1e-4, abs=1e-5)


def bare(rows: list[Row]) -> list[tuple]:
    return [(row.prompt, row.ids, row.source, row.file, row.row) for row in rows]


def test_how_far_the_policy_has_moved_is_told():
    run = running()
    rows, policy, critic = written(run)
    [pack] = packs_of(rows, 1000)
    loss = run.ppo.loss({"policy": policy, "critic": critic}, pack)
    moved = [k3(torch.tensor(row.told[LOGPS]), logps_of(policy.model, row, 1.0)) for row in rows]
    assert float(loss.metrics["drift"][0]) == pytest.approx(float(torch.cat(moved).detach().sum()), rel=1e-4)


@pytest.mark.parametrize("adapter", ["full", "lora", "freeze"])
def test_a_plan_knows_the_critic(adapter):
    build = OutlineBuilder(ModelConfig(path="builtin:tiny-llama"), adapters[adapter]())
    models = objective("ppo").models(build)
    assert models["critic"].summary.weight.is_meta


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_tokens": 9}, "min_tokens 9 is more than max_tokens 8"),
        ({"limit_from": 9}, "limit_from 9 is more than max_tokens 8"),
        ({"limit_from": 3, "min_tokens": 4}, "min_tokens 4 is more than limit_from 3"),
        ({"target_kl": 0.1}, "there is only one step; give passes or minibatches"),
        ({"gamma": 1.5}, "gamma"),
        ({"beta": -1}, "beta"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        objective("ppo", **settings)

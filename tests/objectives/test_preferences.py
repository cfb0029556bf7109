# ruff: noqa: E741 - l is the worse answer in the formulas
"""Each loss of pairs and ratings is its paper's, in float64 from transformers' logits; so are its gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.functional import logsigmoid as ls

from danlu.data.loader import Step
from danlu.data.packing import Pack, refit
from danlu.models.adapters import adapters
from danlu.models.adapters.base import Adapter
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy
from danlu.objectives import objectives
from danlu.objectives.base import Objective
from tests.models.test_policy import assert_same_gradients
from tests.objectives.conftest import PAIRS, gradients, stir

MODEL = ModelConfig(path="builtin:tiny-llama")
ADAPTERS = {"full": {}, "freeze": {"blocks": 1}, "lora": {"rank": 4, "alpha": 4}}
RATINGS = [
    {"prompt": pair["prompt"], "completion": pair[key], "label": key == "chosen"}
    for pair in PAIRS
    for key in ("chosen", "rejected")
][:5]


class Build:
    """Policies with an adapter; what is asked of the builder is what objectives are given by the engine."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def policy(self) -> Policy:
        torch.manual_seed(0)
        return Policy(self.adapter.apply(build_model(MODEL, torch.float32))).train()


def learning(objective: Objective, adapter: str = "full", *, moved: bool = True) -> Policy:
    """A policy that began as the model and has moved on."""
    policy = objective.models(Build(adapters[adapter](**ADAPTERS[adapter])))["policy"]
    if moved:
        stir(policy.model)
    return policy


def logps_of(model, pack: Pack) -> tuple[Tensor, Tensor]:
    """[S] summed log-probabilities of each segment read alone, and how many tokens they are of."""
    sums, counts = [], []
    for ids, targets in zip(pack.input_ids.split(pack.lengths), pack.targets.split(pack.lengths), strict=True):
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        sums.append(-cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
        counts.append(int((targets >= 0).sum()))
    return torch.stack(sums), torch.tensor(counts).double()


# w, l: log-probabilities of the better and the worse answer; rw, rl: under the reference; nw, nl: tokens
EXPECTED = {
    "dpo": ({}, lambda w, l, rw, rl, nw, nl: -ls(0.1 * ((w - rw) - (l - rl)))),
    "dpo smoothed": (
        {"label_smoothing": 0.2, "beta": 0.3},
        lambda w, l, rw, rl, nw, nl: -0.8 * ls(0.3 * ((w - rw) - (l - rl))) - 0.2 * ls(-0.3 * ((w - rw) - (l - rl))),
    ),
    "dpo by length": (
        {"length_normalized": True, "beta": 2.0},
        lambda w, l, rw, rl, nw, nl: -ls(2 * ((w - rw) / nw - (l - rl) / nl)),
    ),
    "dpo rpo": ({"sft_weight": 0.5}, lambda w, l, rw, rl, nw, nl: -ls(0.1 * ((w - rw) - (l - rl))) - 0.5 * w / nw),
    "ipo": ({}, lambda w, l, rw, rl, nw, nl: ((w - rw) / nw - (l - rl) / nl - 5) ** 2),
    "hinge": ({"beta": 0.2}, lambda w, l, rw, rl, nw, nl: (1 - 0.2 * ((w - rw) - (l - rl))).relu()),
    "robust": (
        {"label_smoothing": 0.1},
        lambda w, l, rw, rl, nw, nl: (
            (-0.9 * ls(0.1 * ((w - rw) - (l - rl))) + 0.1 * ls(-0.1 * ((w - rw) - (l - rl)))) / 0.8
        ),
    ),
    "simpo": ({"gamma": 0.7}, lambda w, l, rw, rl, nw, nl: -ls(2 * (w / nw - l / nl) - 0.7)),
    "cpo": ({}, lambda w, l, rw, rl, nw, nl: -ls(0.1 * (w - l)) - w / nw),
    "orpo": (
        {"beta": 0.25},
        lambda w, l, rw, rl, nw, nl: (
            -w / nw - 0.25 * ls((w / nw - l / nl) - (torch.log(1 - (w / nw).exp()) - torch.log(1 - (l / nl).exp())))
        ),
    ),
}


@pytest.mark.parametrize("case", EXPECTED)
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_losses_and_gradients_are_the_papers_in_float64(case, adapter, judged_packs):
    settings, formula = EXPECTED[case]
    objective = objectives[case.partition(" ")[0]](**settings)
    policy = learning(objective, adapter).eval()
    [pack] = judged_packs(PAIRS)
    loss = objective.loss({"policy": policy}, pack)
    found = gradients(policy.model, loss.total)

    reference, _ = logps_of(build_model(MODEL, torch.float64).eval(), pack)
    policy.model.double()
    logps, counts = logps_of(policy.model, pack)
    parts = [values[start::2] for values in (logps, reference.detach(), counts) for start in (0, 1)]
    expected = formula(*parts).sum()
    assert loss.count == 3
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=0)
    assert_same_gradients(found, gradients(policy.model, expected), rtol=2e-5)


def rated_expectation(name: str, logps: Tensor, reference: Tensor, good: Tensor, kl: float) -> Tensor:
    rewards = 0.1 * (logps - reference)
    signs = 2 * good - 1
    if name == "kto":
        weights = torch.where(good > 0, 1.0, 0.5)
        return (weights * (1 - torch.sigmoid(signs * (rewards - 0.1 * max(0.0, kl))))).sum()
    middle = ((rewards * good).sum() / good.sum() + (rewards * (1 - good)).sum() / (1 - good).sum()) / 2
    return -ls(signs * (rewards - middle.detach())).sum()


@pytest.mark.parametrize("rows", [RATINGS, PAIRS], ids=["ratings", "pairs"])
@pytest.mark.parametrize("name", ["kto", "bco"])
def test_losses_of_good_and_bad_answers_are_the_papers_in_float64(name, rows, judged_packs):
    objective = objectives[name](**({"bad_weight": 0.5} if name == "kto" else {}))
    policy = learning(objective).eval()
    [pack] = judged_packs(rows)
    [step] = objective.steps({"policy": policy}, [Step([pack], 0.0, {})])
    loss = objective.loss({"policy": policy}, *step.packs)
    found = gradients(policy.model, loss.total)

    first = build_model(MODEL, torch.float64).eval()
    policy.model.double()
    reference, logps = logps_of(first, pack)[0].detach(), logps_of(policy.model, pack)[0]
    mixed = with_the_answer_before(pack)
    kl = (logps_of(policy.model, mixed)[0] - logps_of(first, mixed)[0]).mean().item()
    good = torch.tensor([float(segment.facts.get("good", segment.rank == 0)) for segment in pack.segments])
    expected = rated_expectation(name, logps, reference, good, kl)
    assert loss.count == len(good)
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=0)
    assert_same_gradients(found, gradients(policy.model, expected), rtol=2e-5)


def with_the_answer_before(pack: Pack) -> Pack:
    """Each prompt with the answer of the row before it, the first with the last."""
    rows = []
    for ids, targets in zip(pack.input_ids.split(pack.lengths), pack.targets.split(pack.lengths), strict=True):
        start = int((targets >= 0).nonzero()[0]) + 1
        rows.append((ids[:start], ids[start:], (targets[start - 1 : -1] >= 0)))
    mixed = []
    for number, (prompt, _, _) in enumerate(rows):
        _, answer, trained = rows[number - 1]
        mask = torch.cat([torch.zeros(len(prompt), dtype=torch.bool), trained])
        mixed.append((torch.cat([prompt, answer]).numpy(), mask.numpy()))
    return Pack.of(mixed)


@pytest.mark.parametrize("name", ["dpo", "ipo", "robust", "simpo", "kto", "bco"])
def test_any_packs_of_a_step_are_one_batch(name, judged_packs):
    objective = objectives[name]()
    policy = learning(objective).eval()
    totals = []
    for packs in (judged_packs(PAIRS), judged_packs(PAIRS, tokens=2)):
        [step] = objective.steps({"policy": policy}, [Step(packs, 0.0, {})])
        for cut in (step.packs, refit(step.packs, 100)):
            losses = [objective.loss({"policy": policy}, pack) for pack in cut]
            totals.append((float(sum(loss.total.detach() for loss in losses)), sum(loss.count for loss in losses)))
    for total, count in totals[1:]:
        assert total == pytest.approx(totals[0][0], rel=1e-5)
        assert count == totals[0][1]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_before_the_first_step_the_loss_is_ln_2_and_nobody_is_ahead(adapter, judged_packs):
    objective = objectives["dpo"]()
    policy = learning(objective, adapter, moved=False)
    for pack in judged_packs(PAIRS, tokens=2):
        loss = objective.loss({"policy": policy}, pack)
        assert loss.total.item() == pytest.approx(math.log(2), abs=1e-7)
        assert loss.values["delta"].tolist() == [0.0]
        assert loss.metrics["accuracy"] == (0, 1)
        assert loss.metrics["rewards/chosen"] == loss.metrics["rewards/rejected"] == (0.0, 1)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_beginning_is_the_model_it_began_from_and_passes(adapter, judged_packs):
    """Also an adapter that had learned before: its reference is not the base but what it was."""
    objective = objectives["dpo"]()
    policy = objective.models(Build(adapters[adapter](**ADAPTERS[adapter])))["policy"]
    stir(policy.model, seed=8)
    policy.remember()  # as if it had been loaded so
    [pack] = judged_packs(PAIRS)
    began = policy.eval().logprobs(pack)
    stir(policy.model, seed=9)
    moved = policy.logprobs(pack)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with torch.no_grad(), policy.beginning():
        assert torch.equal(policy.logprobs(pack), began)
    assert torch.equal(policy.logprobs(pack), moved)
    assert not torch.equal(moved, began)
    after = policy.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_off_a_copy_and_what_was_worked_out_before_are_one_reference(judged_packs):
    packs = judged_packs(PAIRS, tokens=300)
    told = []
    for reference in ("beginning", "base", "precomputed"):
        objective = objectives["dpo"](reference=reference)
        policy = learning(objective, "lora", moved=False)
        if reference == "precomputed":
            for pack in packs:
                for segment, logp in zip(pack.segments, objective.computed_logps(policy, pack).tolist(), strict=True):
                    segment.facts["reference"] = logp
        stir(policy.model)
        losses = [objective.loss({"policy": policy}, pack) for pack in packs]
        told.append((sum(loss.total for loss in losses), gradients(policy.model, sum(loss.total for loss in losses))))
    for total, found in told[1:]:
        torch.testing.assert_close(total, told[0][0], rtol=1e-6, atol=0)
        assert_same_gradients(found, told[0][1], rtol=1e-5)


def test_a_reference_drops_nothing_out_and_leaves_the_policy_learning(judged_packs):
    objective = objectives["dpo"]()
    policy = objective.models(Build(adapters["lora"](rank=4, dropout=0.5)))["policy"]
    [pack] = judged_packs(PAIRS)
    state = torch.get_rng_state()
    first, second = objective.computed_logps(policy, pack), objective.computed_logps(policy, pack)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.training
    assert all(p.requires_grad for name, p in policy.model.named_parameters() if "lora" in name)


@pytest.mark.parametrize("reference", ["beginning", "base"])
def test_the_reference_has_no_gradient_and_stays_what_it_was(reference, judged_packs):
    objective = objectives["dpo"](reference=reference)
    policy = learning(objective, "lora", moved=False)
    [pack] = judged_packs(PAIRS)
    before = objective.computed_logps(policy, pack)
    optimizer = torch.optim.SGD([p for p in policy.model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        objective.loss({"policy": policy}, pack).total.backward()
        optimizer.step()
    assert torch.equal(objective.computed_logps(policy, pack), before)
    assert objective.loss({"policy": policy}, pack).total < 3 * math.log(2)


def test_a_ranked_list_is_every_pair_of_it(judged_packs):
    rows = [{"instruction": "q", "output": ["one", "two", "three"]}]
    [pack] = judged_packs(rows, format={"name": "alpaca_ranked", "answers": "all"})
    objective = objectives["dpo"]()
    policy = learning(objective).eval()
    loss = objective.loss({"policy": policy}, pack)
    logps = logps_of(policy.model, pack)[0] - logps_of(build_model(MODEL, torch.float32).eval(), pack)[0]
    expected = sum(-ls(0.1 * (logps[i] - logps[j])) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert loss.count == 3
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=0)


def test_a_rank_of_a_stream_measures_from_its_own_packs(judged_packs):
    objective = objectives["kto"]()
    policy = learning(objective).eval()
    mine, _, _ = judged_packs(PAIRS, tokens=2)
    with torch.no_grad():
        first_point = objective.point(policy, [mine])
    [step] = objective.steps({"policy": policy}, [Step([mine, None], 0.0, {})])
    assert step.packs[1] is None
    assert step.packs[0].segments[0].facts["point"] == first_point


def test_kto_asks_for_answers_that_nobody_worked_out_before():
    with pytest.raises(ValueError, match="kto asks for answers to other prompts"):
        objectives["kto"](reference="precomputed")
    with pytest.raises(ValueError, match="leaves nothing to learn"):
        objectives["kto"](good_weight=0, bad_weight=0)

"""TRL's trainers of preferences: the same ids give the same loss and the same gradients."""

import inspect

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.models.adapters.full import Full
from danlu.models.load import ModelConfig, build_model, build_scorer
from danlu.models.policy import Policy
from danlu.models.scorer import Scorer
from danlu.objectives import objectives
from danlu.objectives.base import Loss
from tests.models.test_policy import assert_same_gradients
from tests.objectives.conftest import PAIRS, gradients, judged_packs, stir

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL warns about itself
__all__ = ["judged_packs"]

MODEL = ModelConfig(path="builtin:tiny-llama")


@pytest.fixture
def settings(tmp_path):
    return {
        "output_dir": str(tmp_path / "trl"),
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 8,
        "max_length": None,
    }


def tokenizer_of(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return tokenizer


def answers(pack: Pack) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) of each segment. TRL trains every id of an answer, so what follows its end mark is left out."""
    found = []
    for ids, targets in zip(pack.input_ids.split(pack.lengths), pack.targets.split(pack.lengths), strict=True):
        trained = (targets >= 0).nonzero()[:, 0]
        first, last = int(trained[0]) + 1, int(trained[-1]) + 2
        found.append((ids[:first].tolist(), ids[first:last].tolist()))
    return found


def began_and_moved(folder) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The model as it was, and as it is now."""
    first, now = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    stir(now)
    return first, now


def ours(name: str, pack: Pack, **fields) -> tuple[Loss, dict[str, torch.Tensor]]:
    """Loss and gradients of a policy that has moved just as far."""

    class Build:
        def policy(self) -> Policy:
            return Policy(Full().apply(build_model(MODEL, torch.float32))).train()

    objective = objectives[name](**fields)
    policy = objective.models(Build())["policy"]
    stir(policy.model)
    [step] = objective.steps({"policy": policy}, [Step([pack], 0.0, {})])
    loss = objective.loss({"policy": policy}, *step.packs)
    return loss, gradients(policy.model, loss.total / loss.count)


def compare(mine: tuple[Loss, dict], theirs: torch.Tensor, model: torch.nn.Module, times: float = 1.0) -> None:
    loss, found = mine
    torch.testing.assert_close(times * loss.total / loss.count, theirs, rtol=1e-5, atol=1e-7)
    found = {key: times * value for key, value in found.items()}
    assert_same_gradients(found, gradients(model, theirs), rtol=2e-5)


DPO = {
    "sigmoid": ("dpo", {"beta": 0.3}, {}),
    "sigmoid_norm": ("dpo", {"beta": 2.0}, {"length_normalized": True}),
    "hinge": ("hinge", {"beta": 0.3}, {}),
    "ipo": ("ipo", {"beta": 0.3}, {}),
    "robust": ("robust", {"beta": 0.3, "label_smoothing": 0.2}, {}),
    "bco_pair": ("bco", {"beta": 0.3}, {"shift": False}),
}


@pytest.mark.parametrize("kind", DPO)
def test_losses_of_pairs_are_those_of_trls_dpo_trainer(tiny, settings, judged_packs, kind):
    name, shared, more = DPO[kind]
    [pack] = judged_packs(PAIRS)
    first, now = began_and_moved(tiny("llama"))
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 3
    args = DPOConfig(loss_type=[kind], **shared, **settings)
    trainer = DPOTrainer(
        now, first, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer_of(tiny("llama"))
    )
    said = answers(pack)
    examples = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for (prompt, chosen), (_, rejected) in zip(said[::2], said[1::2], strict=True)
    ]
    theirs = trainer._compute_loss(trainer.model.train(), trainer.data_collator(examples), False)
    compare(ours(name, pack, **shared, **more), theirs, now, times=2.0 if name == "bco" else 1.0)


def test_losses_of_ratings_are_those_of_trls_kto_trainer(tiny, settings, judged_packs):
    rows = [
        {"prompt": pair["prompt"], "completion": pair[key], "label": key == "chosen"}
        for pair in PAIRS
        for key in ("chosen", "rejected")
    ]
    [pack] = judged_packs(rows)
    first, now = began_and_moved(tiny("llama"))
    args = KTOConfig(beta=0.3, desirable_weight=1.0, undesirable_weight=0.5, **settings)
    trainer = KTOTrainer(
        now, first, args=args, train_dataset=Dataset.from_list([*rows]), processing_class=tokenizer_of(tiny("llama"))
    )
    said = answers(pack)
    examples = [
        {
            "prompt_ids": prompt,
            "completion_ids": answer,
            "KL_completion_ids": said[number - 1][1],
            "label": pack.segments[number].facts["good"],
        }
        for number, (prompt, answer) in enumerate(said)
    ]
    theirs = trainer._compute_loss(trainer.model.train(), trainer.data_collator(examples), False)
    compare(ours("kto", pack, beta=0.3, bad_weight=0.5), theirs, now)


@pytest.mark.parametrize("name", ["cpo", "simpo", "orpo"])
def test_losses_without_a_reference_are_trls(judged_packs, name):
    """Their trainers' formulas on our log-probabilities; TRL's NLL is over a batch's tokens, so one pair at a time."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    shared = {"cpo": {"beta": 0.3}, "simpo": {"beta": 2.0, "gamma": 0.5}, "orpo": {"beta": 0.3}}[name]
    for pack in judged_packs(PAIRS, tokens=2):
        loss, _ = ours(name, pack, **shared)
        policy = Policy(Full().apply(build_model(MODEL, torch.float32)))
        stir(policy.model)
        logps, counts = zip(
            *((part.sum(), int((part != 0).sum())) for part in policy.logprobs(pack).split(pack.lengths)), strict=True
        )
        means = [logp / count for logp, count in zip(logps, counts, strict=True)]
        facts = {"beta": shared["beta"], "alpha": 0.0, "label_smoothing": 0.0, "simpo_gamma": shared.get("gamma", 0.0)}
        trainer = type("Facts", (), facts | {"loss_type": "simpo" if name == "simpo" else "sigmoid"})()
        trainer.accelerator = type("Device", (), {"device": torch.device("cpu")})
        given = [value[None] for value in (logps if name == "cpo" else means)]
        if name == "orpo":
            expected = -means[0] - inspect.unwrap(ORPOTrainer.odds_ratio_loss)(trainer, *given)[0]
        else:
            expected = inspect.unwrap(CPOTrainer.cpo_loss)(trainer, *given)[0]
            expected = expected - means[0] if name == "cpo" else expected
        torch.testing.assert_close(loss.total, expected[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("centering", [None, 0.05])
def test_a_reward_models_loss_is_that_of_trls_reward_trainer(tiny, settings, judged_packs, centering):
    [pack] = judged_packs(PAIRS)
    torch.manual_seed(0)
    scorer = Scorer(Full().apply(build_scorer(MODEL).float())).train()
    stir(scorer.model)
    theirs_model = AutoModelForSequenceClassification.from_pretrained(tiny("llama"), num_labels=1, dtype=torch.float32)
    theirs_model.load_state_dict(scorer.inner.state_dict())
    whole = [ids.tolist() for ids in pack.input_ids.split(pack.lengths)]
    margins = [segment.facts["margin"] for segment in pack.segments[::2]]
    examples = [
        {"chosen_ids": chosen, "rejected_ids": rejected, "margin": margin}
        for chosen, rejected, margin in zip(whole[::2], whole[1::2], margins, strict=True)
    ]
    tokenizer = tokenizer_of(tiny("llama"))
    trainer = RewardTrainer(
        theirs_model,
        args=RewardConfig(center_rewards_coefficient=centering, **settings),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
    )
    loss = objectives["reward"](centering=centering or 0.0).loss({"policy": scorer}, pack)
    mine = loss, gradients(scorer.model, loss.total / loss.count)
    theirs = trainer.compute_loss(trainer.model.train(), dict(trainer.data_collator(examples)))
    compare(mine, theirs, theirs_model)

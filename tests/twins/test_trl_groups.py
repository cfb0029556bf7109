"""TRL's trainers of groups of answers: the same ids and advantages give the same loss and the same gradients."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from danlu.objectives._answers import ADVANTAGES, LOGPS, REFERENCE, packs_of
from tests.models.test_policy import assert_same_gradients
from tests.objectives.conftest import gradients
from tests.objectives.test_rolled import answered, objective, shifted
from tests.twins.test_trl_preferences import settings, tokenizer_of

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL warns about itself
__all__ = ["settings"]

# ours -> TRL's
CASES = {
    "grpo": ({"beta": 0.3}, {"loss_type": "grpo"}),
    "grpo answers": (
        {"ratio": "answer", "clip_low": 0.02, "clip_high": 0.03},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
    "grpo biased": (
        {"beta": 0.3, "unbiased_divergence": False},
        {"loss_type": "grpo", "use_bias_correction_kl": False},
    ),
    "dr_grpo": ({"temperature": 0.7}, {"loss_type": "dr_grpo"}),
    "dapo": ({"clip_high": 0.28, "beta": 0.1}, {"loss_type": "dapo"}),
    "dapo as bnpo": ({"clip_high": 0.2}, {"loss_type": "bnpo"}),
    "cispo": ({"clip_high": 0.1}, {"loss_type": "cispo", "epsilon_high": 1.1}),
    "rloo": ({}, {}),
    "grpo corrected": ({"beta": 0.3, "correction": {"cap": 1.1}}, {"loss_type": "grpo"}),
    "grpo corrected answers": ({"correction": {"cap": 1.1, "level": "answer"}}, {"loss_type": "grpo"}),
    "grpo masked answers": (
        {"correction": {"cap": 1.2, "level": "answer", "mask_above": 1.2}},
        {"loss_type": "grpo"},
    ),
    "dapo corrected": ({"clip_high": 0.28, "correction": {"cap": 1.1}}, {"loss_type": "dapo"}),
    "cispo corrected": (
        {"clip_high": 0.1, "correction": {"cap": 1.1, "mask_above": 1.2}},
        {"loss_type": "cispo", "epsilon_high": 1.1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_trl(case, tiny, settings):
    name, (mine, theirs) = case.partition(" ")[0], CASES[case]
    rows, policy = answered(mine, name)
    drawn = drawn_elsewhere(rows) if "correction" in mine else None
    if drawn is not None:
        objective(name, **mine).correction.correct(rows, drawn)
    loss = objective(name, **mine).loss({"policy": policy}, packs_of(shifted(rows), 1000)[0])
    found = gradients(policy.model, loss.total / loss.count)

    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    model.load_state_dict(policy.model.state_dict())
    kinds = (RLOOConfig, RLOOTrainer) if name == "rloo" else (GRPOConfig, GRPOTrainer)
    given = {
        "beta": mine.get("beta", 0.0),
        "temperature": mine.get("temperature", 1.0),
        "epsilon": mine.get("clip_low", 0.2),
        "epsilon_high": mine.get("clip_high", 0.2),
        "num_generations": 3,
        "max_completion_length": 8,
    }
    shared = {key: value for key, value in settings.items() if key != "max_length"}
    shared["per_device_train_batch_size"] = 6
    trainer = kinds[1](
        model,
        reward_funcs=lambda **told: [0.0],
        args=kinds[0](**(given | theirs), **shared),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 6),
        processing_class=tokenizer_of(tiny("llama")),
    )
    trainer.current_gradient_accumulation_steps = 1
    told = inputs(rows)
    if drawn is not None:
        trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
        told["importance_sampling_ratio"] = ratios(told, drawn, mine["correction"])
    total = trainer._compute_loss(trainer.model.train(), told)
    torch.testing.assert_close(loss.total / loss.count, total, rtol=1e-5, atol=1e-8)
    assert_same_gradients(found, gradients(model, total), rtol=2e-5)


def drawn_elsewhere(rows) -> list[list[float]]:
    """What another program says of the same tokens: a little more or less of each."""
    draw = torch.Generator().manual_seed(1)
    return [(torch.tensor(row.told[LOGPS]) + 0.2 * torch.randn(len(row.ids), generator=draw)).tolist() for row in rows]


def ratios(told: dict[str, torch.Tensor], drawn: list[list[float]], correction: dict) -> torch.Tensor:
    """As TRL works them out where it draws from vLLM: a step of its sampling, which cannot be called alone."""
    mask = told["completion_mask"]
    theirs = torch.tensor([row + [0.0] * (mask.shape[1] - len(row)) for row in drawn])
    behind = (told["old_per_token_logps"] - theirs) * mask
    answers = behind.sum(-1, keepdim=True).exp()
    found = behind.exp() if correction.get("level", "token") == "token" else answers
    found = found.clamp(max=correction["cap"])
    bound = correction.get("mask_above", float("inf"))
    found = found.masked_fill((answers < 1 / bound) | (answers > bound), 0.0)
    assert (found != 1).any()
    assert (found == correction["cap"]).any() or "mask_above" in correction
    assert (found == 0).any() == ("mask_above" in correction)
    return found


def inputs(rows) -> dict[str, torch.Tensor]:
    """Answers as TRL's trainers hand them on: prompts padded on the left, answers on the right."""
    before, after = max(len(row.prompt) for row in rows), max(len(row.ids) for row in rows)

    def right(values: list, fill: float = 0) -> list:
        return values + [fill] * (after - len(values))

    def left(values: list) -> list:
        return [0] * (before - len(values)) + values

    logps = torch.tensor([right(row.told[LOGPS]) for row in rows])
    return {
        "prompt_ids": torch.tensor([left(row.prompt) for row in rows]),
        "prompt_mask": torch.tensor([left([1] * len(row.prompt)) for row in rows]),
        "completion_ids": torch.tensor([right(row.ids) for row in rows]),
        "completion_mask": torch.tensor([right([1] * len(row.ids)) for row in rows]),
        "advantages": torch.tensor([row.told[ADVANTAGES][0] for row in rows]),
        "old_per_token_logps": logps,
        "old_logps": logps.sum(1),
        "ref_per_token_logps": torch.tensor([right(row.told[REFERENCE]) for row in rows]),
        "num_items_in_batch": torch.tensor(sum(len(row.ids) for row in rows)),
    }

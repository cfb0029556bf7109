"""A reward model's adapter beside a policy's: scores as alone, one set of base weights, nothing else moved."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from danlu.core.errors import UserError
from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.training import Training
from danlu.models.adapters import adapters
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.models.load import ModelConfig, build_model, build_scorer
from danlu.models.lodger import Lodger, shown
from danlu.models.policy import Policy
from danlu.models.quantizers.base import quantizers
from danlu.models.scorer import Scorer
from danlu.rewards import rewards
from danlu.rewards.base import Court
from tests.objectives.conftest import stir
from tests.rewards.conftest import answer

NF4 = quantizers["nf4"]()
PACK = Pack.of([(np.arange(5, 5 + n), np.arange(n) > 2) for n in (9, 4, 17)])


def judge_in(folder, model: ModelConfig, **settings) -> Scorer:
    """A LoRA reward model that has moved, saved as a run saves it."""
    adapter = adapters["lora"](rank=4, **settings)
    scorer = Scorer(adapter.apply(build_scorer(model))).eval()
    stir(scorer.model, seed=8)
    scorer.save(adapter, folder)
    tiny_tokenizer().save_pretrained(folder)
    return scorer


def policy_of(model: ModelConfig, **settings) -> Policy:
    policy = Policy(adapters["lora"](**settings).apply(build_model(model))).train()
    stir(policy.model)
    return policy


@pytest.mark.parametrize("quantizer", [None, NF4], ids=["whole", "nf4"])
@pytest.mark.parametrize(
    "settings", [{}, {"target": "q_proj,v_proj"}, {"embeddings": True}], ids=["all", "some layers", "tables"]
)
def test_scores_are_those_of_the_reward_model_alone(tmp_path, settings, quantizer):
    model = ModelConfig(path="builtin:tiny-llama", quantizer=quantizer)
    alone = judge_in(tmp_path / "judge", model).scores(PACK)
    policy = policy_of(model, dropout=0.3, **settings)
    policy.eval()
    before = policy.logprobs(PACK)
    policy.train()
    learning = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    lodger = Lodger(policy, tmp_path / "judge")
    torch.testing.assert_close(lodger.scores(PACK), alone, rtol=1e-5, atol=1e-6)
    assert policy.training
    policy.eval()
    assert torch.equal(policy.logprobs(PACK), before)
    assert {name for name, parameter in policy.named_parameters() if parameter.requires_grad} == learning


def test_base_weights_are_there_once(tmp_path):
    model = ModelConfig(path="builtin:tiny-llama")
    judge_in(tmp_path / "judge", model)
    policy = policy_of(model)
    before = {id(each): each.numel() for each in policy.parameters()}
    court = Court(tiny_tokenizer(), torch.device("cpu"), 64, policy)
    judge = rewards["model"](path=str(tmp_path / "judge"), shared=True).open(court)
    assert len(judge([answer("x", ids=[9, 10])])) == 1
    added = {name: each for name, each in policy.named_parameters() if id(each) not in before}
    assert added
    assert all("lora_" in name and "lodger_1" in name for name in added)
    assert sum(each.numel() for each in added.values()) < 0.5 * sum(before.values())


def test_what_is_saved_and_learnt_is_the_policys_alone(tmp_path):
    model = ModelConfig(path="builtin:tiny-llama")
    judge_in(tmp_path / "judge", model)
    adapter = adapters["lora"](rank=2)
    policy = Policy(adapter.apply(build_model(model))).train()
    policy.remember()
    plain = set(Training(EngineConfig(), {"policy": policy}, torch.float32, 1, lambda name: 1.0).masters.parameters)
    lodger = Lodger(policy, tmp_path / "judge")
    training = Training(EngineConfig(), {"policy": policy}, torch.float32, 1, lambda name: 1.0)
    assert set(training.masters.parameters) == plain
    scores = lodger.scores(PACK)
    policy.logprobs(PACK).sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in policy.model.parameters())
    stir(policy.model)
    with policy.beginning():
        assert torch.equal(lodger.scores(PACK), scores)
    assert torch.equal(lodger.scores(PACK), scores)
    adapter.save(policy.model, tmp_path / "policy")
    assert not [path for path in (tmp_path / "policy").iterdir() if path.is_dir()]
    assert not [name for name in load_file(tmp_path / "policy/adapter_model.safetensors") if "lodger" in name]


def test_gradients_of_the_policy_are_the_same_after_another_was_shown(tmp_path):
    model = ModelConfig(path="builtin:tiny-llama")
    judge_in(tmp_path / "judge", model)
    policy = policy_of(model)
    found = []
    for lodged in (False, True):
        if lodged:
            Lodger(policy, tmp_path / "judge").scores(PACK)
        policy.zero_grad()
        policy.logprobs(PACK).sum().backward()
        found.append([each.grad.clone() for each in policy.parameters() if each.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert isinstance(policy.model, PeftModel)
    with shown(policy.model, "lodger_1"):
        assert not any(each.requires_grad for each in policy.parameters())


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("full", "the policy's own base learns; adapter: lora leaves it"),
        ("other", "its base .* is not the policy's"),
        ("merged", "its base .* is not the policy's"),
        ("nf4", "its base is quantized otherwise"),
        ("dora", "it is no plain LoRA"),
        ("language", "it is a language model's"),
        ("whole", "it is no adapter"),
    ],
)
def test_what_cannot_be_shared_is_told_and_auto_loads_it_apart(tmp_path, case, words):
    plain = ModelConfig(path="builtin:tiny-llama")
    policy = policy_of(ModelConfig(path="builtin:tiny-llama", quantizer=NF4) if case == "nf4" else plain)
    judge_in(tmp_path / "judge", plain, **({"dora": True} if case == "dora" else {}))
    path = tmp_path / "judge"
    if case == "full":
        policy = Policy(adapters["full"]().apply(build_model(plain)))
    if case == "other":
        policy = policy_of(ModelConfig(path="builtin:tiny-qwen3"))
    if case == "merged":
        base = build_model(plain)
        with torch.no_grad():
            next(each for each in base.modules() if isinstance(each, nn.Linear)).weight.mul_(1.01)
        policy = Policy(adapters["lora"]().apply(base))
    if case == "language":
        path = tmp_path / "language"
        adapters["lora"]().save(policy.model, path)
        tiny_tokenizer().save_pretrained(path)
    if case == "whole":
        path = tmp_path / "whole"
        adapters["full"]().save(build_scorer(plain), path)
        tiny_tokenizer().save_pretrained(path)
    court = Court(tiny_tokenizer(), torch.device("cpu"), 64, policy)
    with pytest.raises(UserError, match=f"cannot share the policy's base: {words}.*; say shared: false"):
        rewards["model"](path=str(path), shared=True).open(court)
    if case != "language":
        scores = rewards["model"](path=str(path)).open(court)([answer("x", ids=[9, 10])])
        assert scores == rewards["model"](path=str(path), shared=False).open(court)([answer("x", ids=[9, 10])])

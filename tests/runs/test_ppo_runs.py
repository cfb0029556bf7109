"""Whole runs of PPO: every adapter, the critic beside the policy's files, passes that end early, lengths of answers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from danlu.core.errors import RewardError
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.metrics import read_metrics
from tests.runs.small_run import result
from tests.runs.test_rollout_runs import dies, run, samples_of

__all__ = ["run"]

STEPS = {"name": "ppo", "group": 1, "passes": 2, "minibatches": 2}


def steps_of(folder: Path) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


@pytest.mark.parametrize(
    "settings",
    [
        ["adapter={name: full}"],
        ["adapter={name: freeze, blocks: 1}"],
        ["adapter={name: lora, rank: 4}"],
        ["adapter={name: lora, rank: 4}", "model.quantizer={name: nf4}"],
        ["adapter={name: lora, rank: 4}", "engine.precision=bf16"],
        ["adapter={name: full}", "engine.precision=bf16"],
    ],
    ids=["full", "freeze", "lora", "qlora", "lora bf16", "full bf16"],
)
def test_every_adapter_learns_beside_a_critic(run, settings):
    folder = run("run", *settings, "engine.steps=4", **STEPS)
    kept = load_file(folder / "final/value_head.safetensors")
    assert {name: value.shape for name, value in kept.items()} == {"summary.weight": (1, 64), "summary.bias": (1,)}
    assert all(value.any() for value in kept.values())
    newest = next(iter(Checkpoints(folder / "checkpoints")))
    masters = load_file(newest / "masters.safetensors")
    assert torch.equal(masters["critic.summary.weight"], kept["summary.weight"])
    assert (newest / "value_head.safetensors").is_file()
    told = {"policy_loss", "value_loss", "kl", "kl_coefficient", "clipped", "entropy", "drift", "returns_mean"}
    for line in steps_of(folder):
        assert told | {"returns_std", "explained_variance", "values_clipped", "reward"} <= line["metrics"].keys()
    first = steps_of(folder)[0]["metrics"]
    assert first["kl"] == pytest.approx(0, abs=1e-3 if "bf16" not in str(settings) else 1)
    assert first["explained_variance"] == pytest.approx(0, abs=1e-6)  # values begin at 0


def test_a_policy_too_far_from_the_one_that_wrote_gets_new_answers(run, monkeypatch):
    given = STEPS | {"passes": 4, "target_kl": 1e-9}
    settings = ["engine.epochs=2", "data.held_out=4", "adapter={name: lora, rank: 4}"]
    whole_folder = run("whole", *settings, **given)
    whole = result(whole_folder)
    assert len(whole["curve"]) == 4 * 2  # of 8 for each batch: the first changes nothing before it is measured
    drifts = [line["metrics"]["drift"] for line in steps_of(whole_folder)]
    assert [drift > 1e-9 for drift in drifts] == [False, True] * 4
    for after in (4, 5):
        patch = dies(monkeypatch, after)
        with pytest.raises(KeyboardInterrupt):
            run(f"killed_{after}", *settings, **given)
        patch.undo()
        assert result(run(f"killed_{after}", *settings, resume=True, **given)) == whole


def test_answers_are_as_long_as_is_wanted(run):
    given = {"min_tokens": 3, "limit_from": 4, "max_tokens": 9, "group": 3, "name": "ppo"}
    folder = run(
        "run", "engine.steps=6", "engine.epochs=2", "hooks=[metrics_file, {name: samples, most: null}]", **given
    )
    samples = samples_of(folder)
    limits = {}
    for line in samples:
        assert 3 <= line["tokens"] <= 9
        if line["finish"] == "length":
            limits.setdefault(line["step"], set()).add(line["tokens"])
    assert all(len(found) == 1 for found in limits.values())  # one limit for all answers of a step
    drawn = {limit for found in limits.values() for limit in found}
    assert len(drawn) > 1
    assert drawn <= set(range(4, 10))


def test_a_reward_that_is_no_number_stops_with_all_saved_before_it(run, tmp_path):
    code = [
        "calls = []",
        "def judge(answer):",
        "    calls.append(1)",
        "    return float('nan' if len(calls) > 4 else 1)",
    ]
    (tmp_path / "a_bad_judge.py").write_text("\n".join(code))
    rewards = [{"name": "function", "function": "a_bad_judge:judge"}]
    with pytest.raises(RewardError, match=r"gave nan to the answer .*prompts.jsonl.*is saved.*resume"):
        run("run", "allow_code=true", "engine.epochs=2", **STEPS | {"rewards": rewards})
    assert len(steps_of(Path("run"))) == 4
    assert next(iter(Checkpoints(Path("run/checkpoints")))).name == "step-000004"


def test_policy_reference_critic_and_reward_model_share_one_base(run, tmp_path, monkeypatch):
    pairs = [{"prompt": f"say {n}", "chosen": "one two " * 2, "rejected": "no"} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    learn = ["data.sources=pairs.jsonl", "objective={name: reward}", "engine.steps=3", "engine.optimizer.lr=3e-2"]
    judge = run("judge", *learn)
    model = {"name": "model", "path": str(judge)}
    given = STEPS | {"beta": 0.1}
    whole = run("whole", "engine.epochs=2", rewards=[model | {"shared": True}], **given)
    apart = run("apart", "engine.epochs=2", rewards=[model | {"shared": False}], **given)
    rewards = [[line["metrics"]["reward"] for line in steps_of(folder)] for folder in (whole, apart)]
    assert rewards[0] == pytest.approx(rewards[1], rel=1e-3)
    assert len(set(rewards[0])) > 1
    patch = dies(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        run("killed", "engine.epochs=2", rewards=[model | {"shared": True}], **given)
    patch.undo()
    again = run("killed", "engine.epochs=2", resume=True, rewards=[model | {"shared": True}], **given)
    assert result(again) == result(whole)

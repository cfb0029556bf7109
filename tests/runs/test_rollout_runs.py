"""Runs that learn from their own answers: they learn, resume to the same bits, and survive a reward that fails."""

import json
from pathlib import Path

import pytest

from danlu.core.errors import DataError, RewardError, UserError
from danlu.engine import loop
from danlu.engine.metrics import read_metrics
from danlu.runs.start import start
from tests.rewards.conftest import boxed
from tests.runs.small_run import result

CODE = """
from pathlib import Path
def many(answer): return answer.text.count("e") / 4
def once(answer):
    if Path("broken").exists(): raise ConnectionError("no judge today")
    return len(answer.text) / 20
"""
PPO = {
    "passes": 2,
    "minibatches": 3,
    "beta": 0.1,
    "kl_controller": "adaptive",
    "reward_scale": True,
    "limit_from": 3,
    "no_end_penalty": 1.0,
}
OBJECTIVE = {"rewards": [{"name": "length", "most": 5, "slack": 10}], "group": 4, "max_tokens": 8}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(folder, *settings, name=…, **objective)`: begin a tiny run in a folder, or go on."""
    (tmp_path / "judges_of_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    prompts = [{"prompt": f"say {number} and " + "more " * (number % 3)} for number in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))

    def go(folder: str, *settings: str, resume: bool = False, name: str = "grpo", **objective) -> Path:
        words = {
            "model.path": "builtin:tiny-llama",
            "adapter": "{name: lora, rank: 4, dropout: 0.1}",
            "hooks": "[metrics_file, samples]",
            "data.sources": "prompts.jsonl",
            "data.cache": "cache",
            "data.workers": "1",
            "data.batch.rows": "4",
            "data.pack_tokens": "64",
            "engine.precision": "fp32",
            "engine.optimizer.lr": "3e-3",
            "engine.schedule": "{name: constant}",
            "engine.save.every_steps": "2",
            "objective": json.dumps({"name": name} | OBJECTIVE | objective),
            "folder": folder,
        }
        given = words | dict(word.split("=", 1) for word in settings)
        start("grpo", [f"{key}={value}" for key, value in given.items()], resume=resume)
        return Path(folder)

    return go


def dies(monkeypatch, after: int) -> pytest.MonkeyPatch:
    """The process ends without a word after so many steps."""
    patch, train_step = pytest.MonkeyPatch(), loop.train_step

    def step(engine, training, *given):
        if training.progress.step == after:
            raise KeyboardInterrupt
        return train_step(engine, training, *given)

    patch.setattr(loop, "train_step", step)
    return patch


@pytest.mark.parametrize(
    ("name", "objective", "after"),
    [
        ("grpo", {}, 3),
        ("grpo", {"passes": 3, "beta": 0.1}, 5),
        ("rloo", {"passes": 2, "beta": 0.1}, 5),
        ("reinforce_plus_plus", {"beta": 0.1}, 3),
        ("dapo", {"minibatches": 3}, 5),
        ("ppo", PPO, 9),
        ("ppo", PPO, 12),
        ("ppo", PPO | {"passes": 1, "minibatches": 1}, 3),
    ],
)
def test_a_resumed_run_is_the_same_to_the_bit(run, monkeypatch, name, objective, after):
    settings = ["engine.epochs=2", "engine.evaluate.every_steps=3", "data.held_out=4"]
    whole = result(run("whole", *settings, name=name, **objective))
    patch = dies(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        run("killed", *settings, name=name, **objective)
    patch.undo()
    resumed = result(run("killed", *settings, resume=True, name=name, **objective))
    assert resumed == whole
    assert len(whole["curve"]) == 4 * objective.get("passes", 1) * objective.get("minibatches", 1)
    assert samples_of(Path("killed")) == samples_of(Path("whole"))


def samples_of(folder: Path) -> list[dict]:
    """Without the clock."""
    return [{key: line[key] for key in line if key != "time"} for line in read_metrics(folder / "samples.jsonl")]


others = [pytest.param(name, marks=pytest.mark.slow) for name in ("dapo", "cispo", "rloo", "reinforce_plus_plus")]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "ppo", *others])
def test_it_learns_to_write_what_is_rewarded(run, name):
    folder = run(
        "run",
        "adapter={name: full}",
        "engine.steps=16",
        "engine.epochs=100",
        "engine.optimizer.lr=1e-2",
        "allow_code=true",
        name=name,
        rewards=[{"name": "function", "function": "judges_of_mine:many"}],
        group=8,
        max_tokens=4,
    )
    rewards = [line["metrics"]["reward"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]
    assert sum(rewards[-3:]) > 3 * sum(rewards[:3]) + 0.3


def test_samples_are_kept_with_their_rewards(run):
    folder = run("run", "engine.steps=2", "hooks=[metrics_file, {name: samples, most: 6}]")
    samples = samples_of(folder)
    assert [line["step"] for line in samples] == [1] * 6 + [2] * 6
    for line in samples:
        assert line["prompt"].startswith("user\nsay ")
        assert line["reward"] == line["rewards"]["length"] <= 0
        assert line["finish"] in ("stop", "length")
    steps = [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]
    assert "samples" not in steps[0]
    for line in steps:
        waited = line["waited"]
        assert line["waited_seconds"] > waited["writing_seconds"] + waited["judging_seconds"] > 0
        tokens = line["metrics"]["answer_tokens"] * 16
        assert waited["writing_tokens_per_second"] == pytest.approx(tokens / waited["writing_seconds"])
    assert {"reward", "reward_std", "reward/length", "alike", "answer_tokens", "cut_off"} <= steps[0]["metrics"].keys()


def test_answers_that_rows_have_are_what_is_expected(run, tmp_path):
    rows = [{"question": f"what is {number}", "answer": f"it is {number}"} for number in range(8)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = samples_of(run("run", "engine.steps=1", rewards=[{"name": "exact"}]))
    told = {(line["prompt"], line["expected"]) for line in samples}
    assert told <= {(f"user\nwhat is {number}\nassistant\n", f"it is {number}") for number in range(8)}
    assert len(told) == 4


@boxed
def test_programs_are_judged_by_the_tests_of_their_row(run, tmp_path):
    tests = "def check(f):\n    assert f(1) == 2, 'two'\n\ncheck(inc)"
    rows = [{"question": f"write inc {number}", "answer": tests} for number in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = {"rewards": [{"name": "code"}]}
    with pytest.raises(UserError, match="only when the recipe says `allow_code: true`"):
        run("refused", **code)
    samples = samples_of(run("run", "engine.steps=1", "allow_code=true", **code))
    assert {line["expected"] for line in samples} == {tests}
    assert {line["rewards"]["code"] for line in samples} == {0.0}


def test_held_out_prompts_are_answered_and_judged(run):
    folder = run("run", "engine.steps=2", "data.held_out=4")
    evals = [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "eval"]
    assert [line["step"] for line in evals] == [0, 2]
    assert all(line["loss"] == -line["metrics"]["reward"] >= 0 for line in evals)


@pytest.mark.parametrize("more", [{}, {"name": "ppo"} | PPO], ids=["grpo", "ppo"])
def test_a_reward_that_fails_in_mid_run_leaves_a_run_that_goes_on(run, tmp_path, more):
    judge = {"rewards": [{"name": "function", "function": "judges_of_mine:once"}]} | more
    whole = result(run("whole", "allow_code=true", **judge))
    objective_steps = loop.advance

    def breaks(session, *given):
        record = objective_steps(session, *given)
        if record.step == 1:
            (tmp_path / "broken").touch()
        return record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "advance", breaks)
        words = "reward judges_of_mine:once failed on .*prompts.jsonl:.*: no judge today.*is saved.*resume"
        with pytest.raises(RewardError, match=words):
            run("broken_run", "allow_code=true", **judge)
    (tmp_path / "broken").unlink()
    assert result(run("broken_run", "allow_code=true", resume=True, **judge)) == whole


def test_a_step_whose_answers_are_all_cut_off_teaches_nothing(run):
    folder = run("run", "engine.steps=2", name="dapo", max_tokens=1, learn_cut_off=False)
    for line in read_metrics(folder / "metrics.jsonl"):
        if line["event"] == "step":
            assert line["loss"] == 0
            assert line["grad_norm"] == 0


@pytest.mark.parametrize(
    ("settings", "objective", "error", "words"),
    [
        (
            ["data.too_long=truncate_right"],
            {},
            DataError,
            "cuts off the end of a prompt.*say drop, truncate_left",
        ),
        (["data.streaming=true", "engine.steps=2"], {}, UserError, "leave data.streaming out"),
        (["adapter={name: full}"], {"beta": 0.1, "reference": "base"}, UserError, "say beginning"),
        ([], {"rewards": []}, UserError, "objective.rewards: List should have at least 1 item"),
        ([], {"rewards": [{"name": "exakt"}]}, UserError, "no 'exakt'; did you mean 'exact'"),
        ([], {"max_tokens": 250}, UserError, "more than the 256 that the model can read; lower objective.max_tokens"),
        ([], {"group": 1}, UserError, "objective.group"),
        ([], {"writer": {"name": "locl"}}, UserError, "no 'locl'; did you mean 'local'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(run, settings, objective, error, words):
    with pytest.raises(error, match=words):
        run("run", *settings, **objective)

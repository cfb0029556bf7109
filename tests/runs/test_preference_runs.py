"""Whole runs on pairs: they learn, resume to the same bits beside every adapter, and leave behind what was trained."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from danlu.core.errors import UserError
from danlu.engine.metrics import read_metrics
from danlu.models.load import load_model
from tests.runs.small_run import SmallRun

PAIRS = [
    {"prompt": f"count to {n}", "chosen": "one two three " * (n % 3 + 1), "rejected": "no never " * (n % 4 + 1)}
    for n in range(20)
]
PLACE = ("data.max_length=256", "data.pack_tokens=512", "data.template=chatml", "engine.optimizer.lr=1e-2")
OBJECTIVES = {"reward": "objective={name: reward, centering: 0.01}"}
FREEZE = ("adapter={name: freeze, blocks: 1}",)
FULL = ("adapter={name: full}",)
QLORA = ("model.quantizer=nf4",)


@pytest.fixture
def small(tmp_path):
    """`small(objective, *settings)`: a run over pairs."""

    def run(objective: str, *settings: str) -> SmallRun:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
        return SmallRun(tmp_path, (*PLACE, OBJECTIVES[objective], *settings))

    return run


def evals(folder: Path) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "eval"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("adapter", [(), FREEZE, FULL, QLORA], ids=["lora", "freeze", "full", "qlora"])
def test_every_adapter_learns_and_a_killed_run_goes_on_to_the_same_bits(small, tmp_path, objective, adapter):
    run = small(objective, *adapter)
    oracle = run.go(tmp_path / "oracle")
    before, *_, after = evals(tmp_path / "oracle")
    assert after["loss"] < before["loss"]
    assert after["metrics"]["accuracy"] == 1.0
    assert set(after["metrics"]) >= {"accuracy", "delta_mean", "delta_std"}
    run.die(tmp_path / "run", after=3)
    assert run.go(tmp_path / "run") == oracle


def test_a_reward_model_is_found_where_transformers_looks_with_a_panel_and_every_difference(small, tmp_path):
    hooks = "hooks=[metrics_file, plot, delta_scores]"
    small("reward", *FULL, hooks, "engine.evaluate.every_steps=2").go(tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/final")
    assert model.config.num_labels == 1
    told = evals(tmp_path / "run")
    scores = json.loads((tmp_path / "run/delta_scores.json").read_text())
    assert [int(step) for step in scores] == [line["step"] for line in told]
    for line in told:
        deltas = scores[str(line["step"])]
        assert len(deltas) == 3
        assert line["metrics"]["accuracy"] == sum(delta > 0 for delta in deltas) / 3
        assert line["metrics"]["delta_mean"] == pytest.approx(sum(deltas) / 3)
    assert (tmp_path / "run/loss.png").stat().st_size > 10_000


def test_a_value_head_is_left_by_option(small, tmp_path):
    small("reward", "objective.layout=value_head", "engine.steps=2").go(tmp_path / "run")
    assert (tmp_path / "run/final/value_head.bin").is_file()
    assert type(load_model(tmp_path / "run/final").get_base_model()).__name__ == "LlamaForCausalLM"


def test_rows_of_another_kind_are_refused_by_name(small, tmp_path):
    run = small("reward")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    with pytest.raises(UserError, match="fits alpaca.*Conversation; this objective learns from PreferencePair"):
        run.go(tmp_path / "run")

"""Whole runs on pairs: they learn, resume to the same bits beside every adapter, and leave behind what was trained."""

import json
import math
from pathlib import Path
from shutil import rmtree

import pytest
from transformers import AutoModelForSequenceClassification

from danlu.core.errors import UserError
from danlu.engine.metrics import read_metrics
from danlu.models.load import load_model
from danlu.runs import references
from tests.runs.small_run import BF16, SmallRun, curve

PAIRS = [
    {"prompt": f"count to {n}", "chosen": "one two three " * (n % 3 + 1), "rejected": "no never " * (n % 4 + 1)}
    for n in range(20)
]
PLACE = ("data.max_length=256", "data.pack_tokens=512", "data.template=chatml", "engine.optimizer.lr=1e-2")
OBJECTIVES = {
    "reward": "objective={name: reward, centering: 0.01}",
    "dpo": "objective={name: dpo, sft_weight: 0.1}",
    "kto": "objective={name: kto}",
}
BASE, BEFORE = "objective={name: dpo, reference: base}", "objective={name: dpo, reference: precomputed}"
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
    assert objective == "kto" or after["metrics"]["accuracy"] == 1.0
    assert set(after["metrics"]) >= ({"rewards/good"} if objective == "kto" else {"delta_mean", "delta_std"})
    run.die(tmp_path / "run", after=3)
    assert run.go(tmp_path / "run") == oracle


def test_a_reward_model_is_found_where_transformers_looks_with_a_panel_and_every_difference(small, tmp_path):
    hooks = "hooks=[metrics_file, plot, delta_scores, predictions]"
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
    lines = [json.loads(line) for line in (tmp_path / "run/generated_predictions.jsonl").read_text().splitlines()]
    for line, delta in zip(lines, scores[str(told[-1]["step"])], strict=True):
        assert list(line) == ["accept", "reject"]
        assert line["accept"] - line["reject"] == pytest.approx(delta, abs=0.011)


def test_a_value_head_is_left_by_option(small, tmp_path):
    small("reward", "objective.layout=value_head", "engine.steps=2").go(tmp_path / "run")
    assert (tmp_path / "run/final/value_head.bin").is_file()
    assert type(load_model(tmp_path / "run/final").get_base_model()).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("name", ["ipo", "hinge", "robust", "simpo", "cpo", "orpo", "bco"])
def test_every_loss_brings_the_better_answers_ahead(small, tmp_path, name):
    run = small("dpo", f"objective={{name: {name}}}", "adapter.dropout=0", "engine.epochs=3")
    run.go(tmp_path / "run")
    before, *_, after = evals(tmp_path / "run")
    assert after["loss"] < before["loss"]
    assert after["metrics"]["accuracy"] == 1.0


@pytest.mark.parametrize("settings", [("adapter.dropout=0",), (*BF16, *FULL), (*BF16, *QLORA, "adapter.dropout=0")])
def test_dpo_begins_at_ln_2_and_tells_its_rewards(small, tmp_path, settings):
    small("dpo", "objective={name: dpo}", *settings).go(tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run/metrics.jsonl") if line["event"] == "step"]
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[0]["metrics"] == pytest.approx(lines[0]["metrics"] | {"accuracy": 0, "delta": 0, "rewards/chosen": 0})
    told = lines[-1]["metrics"]
    assert told["delta"] == pytest.approx(told["rewards/chosen"] - told["rewards/rejected"], abs=1e-5)
    assert told["delta"] > 0
    assert {"logps/chosen", "logps/rejected"} <= told.keys()


def test_three_references_are_one_run_and_one_is_worked_out_once(small, tmp_path, monkeypatch):
    runs = {name: small("dpo", "adapter.dropout=0", words) for name, words in (("base", BASE), ("before", BEFORE))}
    runs["beginning"] = small("dpo", "adapter.dropout=0", "objective=dpo")
    for name, run in runs.items():
        run.go(tmp_path / name)
    told = {name: [line["loss"] for line in evals(tmp_path / name)] for name in runs}
    assert told["base"] == pytest.approx(told["beginning"], rel=1e-5)
    assert told["before"] == pytest.approx(told["beginning"], rel=1e-4)
    monkeypatch.setattr(references, "worked_out", lambda *given: pytest.fail("worked out again"))
    assert runs["before"].go(tmp_path / "again")["curve"] == curve(tmp_path / "before")
    with pytest.raises(pytest.fail.Exception, match="worked out again"):
        runs["before"].go(tmp_path / "other", "engine.seed=3", "objective={name: dpo, reference: precomputed}")


def test_a_run_with_references_worked_out_before_goes_on_to_the_same_bits(small, tmp_path):
    run = small("dpo", BEFORE, *FULL)
    oracle = run.go(tmp_path / "oracle")
    run.die(tmp_path / "run", after=3)
    rmtree(tmp_path / "cache/references")  # they are of the beginning, not of the checkpoint
    assert run.go(tmp_path / "run") == oracle


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ((*FULL, BASE), "objective dpo with adapter full: reference: base is the model without its adapter"),
        ((*FREEZE, BASE), "objective dpo with adapter freeze: reference: base"),
        ((BEFORE, "data.streaming=true", "engine.steps=2"), "precomputed needs every row before the first step"),
        ((*FULL, *QLORA), "model.quantizer nf4: adapter full learns the weights themselves"),
        (("objective={name: kto, reference: precomputed}",), "kto asks for answers to other prompts"),
        (("data.too_long=split",), "data.too_long: split makes other rows of a row"),
        ((*FULL, "objective={name: reward, layout: value_head}"), "reward with adapter full: layout: value_head"),
        ((*QLORA, "objective={name: reward, layout: merged}"), "merged needs whole weights to merge into"),
    ],
)
def test_what_cannot_work_together_is_refused_by_name_before_anything_is_loaded(small, tmp_path, settings, why):
    with pytest.raises(UserError, match=why):
        small("dpo", *settings).go(tmp_path / "run")
    assert not (tmp_path / "run/run.yaml").exists()


SHAPES = {
    "a list of answers": {"instruction": "q", "input": "", "output": ["one two", "no", "never"]},
    "selected and rejected": {"prompt": "q", "selected": "one two", "rejected": "no"},
    "chosen and rejected": {"prompt": "q", "chosen": "one two", "rejected": "no"},
    "messages": {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "one two"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    },
    "hh": {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: one two",
        "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: no",
    },
}


@pytest.mark.parametrize("objective", ["reward", "dpo"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_pairs_trains(small, tmp_path, objective, shape):
    run = small(objective, "engine.steps=4", "engine.epochs=4", "data.held_out=0", "adapter.dropout=0")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(SHAPES[shape]) + "\n" for _ in range(8)))
    run.go(tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run/metrics.jsonl") if line["event"] == "step"]
    assert lines[-1]["metrics"]["delta"] > lines[0]["metrics"]["delta"]


def test_pairs_stream_too(small, tmp_path):
    settings = ("data.streaming=true", "engine.steps=6", "data.held_out=4", "adapter.dropout=0")
    run = small("dpo", *settings)
    oracle = run.go(tmp_path / "oracle")
    run.die(tmp_path / "run", after=3)
    assert run.go(tmp_path / "run") == oracle


def test_rows_of_another_kind_are_refused_by_name(small, tmp_path):
    run = small("reward")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    with pytest.raises(UserError, match="fits alpaca.*Conversation; this objective learns from PreferencePair"):
        run.go(tmp_path / "run")

"""Every recipe that comes with danlu loads, shows itself, says what it is for, and runs."""

import json
from pathlib import Path

import pytest
import yaml

from danlu.core.config import load, to_yaml
from danlu.core.errors import UserError
from danlu.engine.metrics import read_metrics
from danlu.runs.recipe import SHIPPED, load_recipe, shipped, summary_of
from danlu.runs.start import start
from danlu.runs.train_run import TrainRun

ROWS = [{"instruction": f"count to {number}", "output": "one two three " * (number % 4 + 1)} for number in range(30)]
PAIRS = [{"prompt": f"count to {number}", "chosen": "one two " * 2, "rejected": "no"} for number in range(30)]
TEXTS = ["one two three four five. " * (number % 5 + 1) for number in range(30)]


@pytest.fixture
def sources(tmp_path) -> dict[str, Path]:
    """A file that fits each objective."""
    files = {"sft": tmp_path / "rows.jsonl", "pretrain": tmp_path / "texts.txt", "reward": tmp_path / "pairs.jsonl"}
    files["reward"].write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    files["dpo"] = files["kto"] = files["reward"]  # a pair is a good answer and a bad one
    files["grpo"] = files["ppo"] = files["sft"]  # an answer that is expected
    files["sft"].write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    files["pretrain"].write_text("\n".join(TEXTS))
    return files


@pytest.mark.parametrize("name", shipped())
def test_it_loads_and_what_it_shows_loads_equal(name):
    run = load_recipe(name, ["data.sources=rows.jsonl"])
    shown = yaml.safe_load(to_yaml(run))
    assert load(TrainRun, shown) == run
    assert shown["model"]["path"] == "builtin:smollm2-135m"


@pytest.mark.parametrize("name", shipped())
def test_it_asks_for_data(name):
    with pytest.raises(UserError, match="data.sources is missing; give it as data.sources=…"):
        load_recipe(name)


@pytest.mark.parametrize("name", shipped())
def test_its_first_line_says_what_it_is_for_and_how_to_start_it(name):
    what, _, command = summary_of(name).partition(": ")
    assert 10 < len(what) < 90
    assert command.startswith("danlu ")
    assert name in command
    assert "\n" not in command


@pytest.mark.parametrize("name", shipped())
def test_it_runs_two_steps(name, sources, tmp_path):
    objective = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())["objective"]
    objective = objective["name"] if isinstance(objective, dict) else objective
    settings = [
        "model.path=builtin:tiny-llama",
        f"data.sources={sources[objective]}",
        f"data.cache={tmp_path / 'cache'}",
        "data.workers=1",
        "engine.steps=2",
        f"folder={tmp_path / 'run'}",
        *(["adapter.blocks=1"] if "freeze" in name else []),
        *(["objective.max_tokens=8"] if objective in ("grpo", "ppo") else []),
    ]
    artifact = start(name, settings)
    assert artifact == tmp_path / "run/final"
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2]
    if objective not in ("grpo", "ppo"):  # answers by chance are worth the same, which teaches nothing
        assert all(line["loss"] > 0 for line in lines if line["event"] == "step")
    assert lines[-1]["event"] == "end"
    assert list(artifact.glob("*.safetensors"))


def test_the_rows_that_come_along_are_rows():
    for file in (SHIPPED / "data").iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            assert json.loads(line)

"""A run whose result is a mean of its weights: the mean is what is measured, kept and saved, and costs no bit of y."""

import json
from pathlib import Path

import pytest
import torch

from danlu.engine.checkpoint_folder import Checkpoint
from danlu.engine.metrics import read_metrics
from danlu.models.load import load_model
from tests.runs.small_run import BF16, FULL, SmallRun, curve

SETTINGS = (
    "engine.optimizer={name: schedule_free, lr: 1e-2}",
    "engine.schedule={name: constant, warmup: 0.2}",
    "engine.steps=6",
    "engine.save.limit=null",
)


def evals(folder: Path) -> list[tuple[int, float]]:
    lines = read_metrics(folder / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if line["event"] == "eval"]


def means(folder: Path, step: int, beta: float = 0.9) -> dict[str, torch.Tensor]:
    """x of a checkpoint, from its y and z."""
    checkpoint = Checkpoint.open(folder / f"checkpoints/step-{step:06}")
    y, moments = checkpoint.tensors("masters"), checkpoint.tensors("optimizer")
    return {name.removeprefix("policy.model."): (y[name] - (1 - beta) * moments[f"{name}.z"]) / beta for name in y}


@pytest.mark.parametrize("more", [(), FULL, BF16], ids=["lora", "full", "bf16"])
def test_measuring_changes_nothing_of_how_it_learns(tmp_path, more):
    seldom, often = ((f"engine.evaluate.every_steps={every}",) for every in (6, 1))
    for name, settings in (("seldom", seldom), ("often", often)):
        SmallRun(tmp_path, (*SETTINGS, *more, *settings)).go(tmp_path / name)
    assert curve(tmp_path / "seldom") == curve(tmp_path / "often")
    assert evals(tmp_path / "seldom") == [evals(tmp_path / "often")[0], evals(tmp_path / "often")[-1]]


def test_the_artifact_is_the_mean_and_its_loss_is_the_one_measured(tmp_path):
    small = SmallRun(tmp_path, (*SETTINGS, *FULL))
    small.go(tmp_path / "run")
    mean, found = means(tmp_path / "run", 6), dict(load_model(tmp_path / "run/final").named_parameters())
    for name, value in mean.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-5, atol=1e-6)
    small.go(tmp_path / "next", f"model.path={tmp_path / 'run'}")
    assert evals(tmp_path / "next")[0][1] == pytest.approx(evals(tmp_path / "run")[-1][1], rel=1e-6)
    y = Checkpoint.open(tmp_path / "run/checkpoints/step-000006").tensors("masters")
    assert any(not torch.allclose(y[f"policy.model.{name}"], value) for name, value in mean.items())


def test_the_best_is_the_mean_of_then(tmp_path):
    wild = ("engine.optimizer={name: schedule_free, lr: 0.3}", "engine.evaluate={every_steps: 1, keep_best: true}")
    SmallRun(tmp_path, (*SETTINGS, *FULL, *wild)).go(tmp_path / "run")
    best = min(evals(tmp_path / "run"), key=lambda line: line[1])[0]
    assert 0 < best < 6
    found = dict(load_model(tmp_path / "run/final").named_parameters())
    for name, value in means(tmp_path / "run", best).items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        "{name: schedule_free}",
        "{name: adamw8bit}",
        "{name: lamb8bit, nvlamb: true}",
        pytest.param("{name: lion8bit}", marks=pytest.mark.slow),
        pytest.param("{name: muon}", marks=pytest.mark.slow),
    ],
)
def test_it_resumes_to_the_same_bits(tmp_path, optimizer):
    schedule = ("engine.schedule=constant", "engine.save.limit=1", "adapter.rank=64")  # large enough for 8 bits
    small = SmallRun(tmp_path, (*SETTINGS, *schedule, f"engine.optimizer={optimizer}", "engine.optimizer.lr=1e-2"))
    oracle = small.go(tmp_path / "oracle")
    small.die(tmp_path / "run", after=4)
    assert json.loads((tmp_path / "run/checkpoints/step-000004/progress.json").read_text())["step"] == 4
    assert small.go(tmp_path / "run") == oracle

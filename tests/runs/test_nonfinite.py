"""NaN and Inf never reach the weights: a run stops, skips or goes back, and says which rows it was."""

import json
import math
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from danlu.core.errors import Diverged
from danlu.engine import loop
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.metrics import read_metrics
from danlu.engine.nonfinite import NonFinite
from danlu.engine.step import train_step
from danlu.engine.training import FIRST_LOSS_SCALE, Training
from danlu.models.adapters.lora import Lora
from danlu.models.load import ModelConfig
from danlu.objectives.base import Loss
from danlu.objectives.pretrain import Pretrain
from tests.faults import run
from tests.runs.small_run import BF16, FULL, SmallRun

SKIP, ROLL_BACK = "engine.on_nonfinite=skip", "engine.on_nonfinite=rollback"


@pytest.fixture
def small(tmp_path) -> SmallRun:
    return SmallRun(tmp_path)


@pytest.fixture
def break_packs(monkeypatch) -> Callable[..., list[list[str]]]:
    """`break_packs(nan_at(5))` spoils the fifth pack's loss; returns the rows of every pack that is read."""
    loss = Pretrain.loss

    def install(spoil: Callable[[int, Loss], None]) -> list[list[str]]:
        rows, numbers = [], count(1)

        def spoiled(self, models, pack):
            rows.append([segment.where for segment in pack.segments])
            found = loss(self, models, pack)
            spoil(next(numbers), found)
            return found

        monkeypatch.setattr(Pretrain, "loss", spoiled)
        return rows

    return install


def nan_at(*numbers: int) -> Callable[[int, Loss], None]:
    def spoil(number: int, loss: Loss) -> None:
        if number in numbers:
            loss.total = loss.total * math.nan

    return spoil


def inf_gradient_at(*numbers: int) -> Callable[[int, Loss], None]:
    """The loss is a number and its gradient is not."""

    def spoil(number: int, loss: Loss) -> None:
        if number in numbers:
            loss.total.register_hook(lambda gradient: gradient * math.inf)

    return spoil


def steps(folder: Path) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


def alerts(folder: Path) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "alert"]


def assert_finite(folder: Path) -> None:
    weights = [load_file(path) for path in folder.rglob("*.safetensors") if "bad_batches" not in path.parts]
    assert weights
    for tensors in weights:
        for name, tensor in tensors.items():
            assert torch.isfinite(tensor.float()).all(), name


@pytest.mark.parametrize("settings", [(), FULL, BF16], ids=["lora", "full", "bf16"])
def test_stop_saves_the_weights_before_and_keeps_the_batch(tmp_path, break_packs, settings):
    small, folder = SmallRun(tmp_path, settings), tmp_path / "run"
    rows = break_packs(nan_at(9))
    with pytest.raises(Diverged) as stopped:
        small.go(folder)
    assert stopped.value.exit_code == 6
    step = len(steps(folder)) + 1
    assert step == 3
    message = str(stopped.value)
    assert f"step {step}: a loss of nan in micro-batch 1" in message
    for row in rows[8]:
        assert row in message
    assert "rows.jsonl:" in message
    assert alerts(folder)[0]["message"] in message

    kept = folder / "bad_batches" / f"step-{step:06d}"
    assert str(kept) in message
    assert json.loads((kept / "rows.json").read_text())["rows"] == rows[8]
    assert load_file(kept / "pack-0.safetensors")["input_ids"].numel() > 0
    assert (folder / "checkpoints" / f"step-{step - 1:06d}").is_dir()
    assert not (folder / "final").exists()
    assert_finite(folder)


def test_a_stopped_run_goes_on_where_the_cause_is_gone(small, break_packs, tmp_path, monkeypatch):
    expected = small.go(tmp_path / "oracle")
    with monkeypatch.context() as patch:
        break_packs(nan_at(9))
        with pytest.raises(Diverged):
            small.go(tmp_path / "run")
        patch.undo()
    monkeypatch.undo()
    assert small.go(tmp_path / "run") == expected


def test_skip_leaves_one_update_out_and_counts_it(small, break_packs, tmp_path):
    folder = tmp_path / "run"
    break_packs(nan_at(9))
    found = small.go(folder, SKIP)
    assert [line["step"] for line in steps(folder)] == [1, 2, 3, 4, 5, 6]
    third = steps(folder)[2]
    assert third["skipped"]
    assert math.isnan(third["loss"])
    assert '"loss": "NaN"' in (folder / "metrics.jsonl").read_text()
    assert [line["skipped"] for line in steps(folder)].count(True) == 1
    assert json.loads(found["progress"])["skipped"] == 1
    (end,) = [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "end"]
    assert end["skipped_steps"] == 1
    assert math.isfinite(end["loss"])
    assert len(alerts(folder)) == 1
    assert [line["step"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "eval"] == [0, 3, 6]
    assert_finite(folder)


def test_a_skipped_last_step_is_measured_and_saved(small, break_packs, tmp_path):
    rows = break_packs(nan_at())
    small.go(tmp_path / "count")
    last = len(rows)
    break_packs(nan_at(last))
    small.go(tmp_path / "run", SKIP)
    events = [(line["event"], line["step"]) for line in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert events[-3:] == [("eval", 6), ("save", 6), ("end", 6)]


def test_a_killed_run_skips_the_same_step_again(small, tmp_path, monkeypatch):
    """Killed after the skipped step: whether it is replayed or remembered, the curve is the same."""
    loss = Pretrain.loss

    def go(folder: Path, die_at: int | None = None) -> dict:
        numbers = count(1)

        def spoiled(self, models, pack):
            if next(numbers) == die_at:
                os.kill(os.getpid(), 9)
            found = loss(self, models, pack)
            if any(segment.row == 9 for segment in pack.segments):
                found.total = found.total * math.nan
            return found

        Pretrain.loss = spoiled  # type: ignore[method-assign]
        return small.go(folder, SKIP)

    expected = run(lambda: go(tmp_path / "oracle"), under=tmp_path)
    assert json.loads(expected.value["progress"])["skipped"] == 2  # once an epoch
    for pack in (5, 12):
        folder = tmp_path / f"run-{pack}"
        assert run(lambda folder=folder, pack=pack: go(folder, pack), under=tmp_path).died
        after = run(lambda folder=folder: go(folder), under=tmp_path)
        assert after.value == expected.value, after.error


@pytest.mark.parametrize("settings", [(), BF16], ids=["fp32", "bf16"])
def test_an_infinite_gradient_is_as_bad_as_a_loss(tmp_path, break_packs, settings):
    small = SmallRun(tmp_path, settings)
    rows = break_packs(inf_gradient_at(5))
    with pytest.raises(
        Diverged, match=r"step 2: a gradient norm of (inf|nan) in the gradient of the whole batch"
    ) as stopped:
        small.go(tmp_path / "stop")
    assert rows[4][0] in str(stopped.value)
    break_packs(inf_gradient_at(5))
    found = small.go(tmp_path / "skip", SKIP)
    assert json.loads(found["progress"])["skipped"] == 1
    assert_finite(tmp_path)


def test_rollback_goes_back_and_on_with_other_data(small, break_packs, tmp_path):
    """The fourth step is bad, the newest checkpoint is of step 2: its weights, and the rows after the bad step."""
    folder = tmp_path / "run"
    clean = break_packs(nan_at())
    small.go(tmp_path / "clean")
    rows = break_packs(nan_at(11))
    found = small.go(folder, ROLL_BACK)
    assert rows[:11] == clean[:11]
    bad = {row for pack in rows[9:12] for row in pack}
    assert bad
    lines = steps(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]  # two of the six steps' rows were passed
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert found["twice"] == []
    (alert,) = alerts(folder)
    assert alert["step"] == 4
    assert json.loads(found["progress"])["skipped"] == 1
    evals = [line["step"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "eval"]
    assert evals == [0, 3, 4]  # the data is used up at step 4: what is trained is measured
    assert_finite(folder)


def test_rollback_without_a_checkpoint_stops(small, break_packs, tmp_path):
    break_packs(nan_at(2))
    with pytest.raises(Diverged, match="no checkpoint to go back to"):
        small.go(tmp_path / "run", ROLL_BACK)


@pytest.mark.parametrize("policy", [SKIP, ROLL_BACK])
def test_ten_in_a_row_are_no_accident(small, break_packs, tmp_path, policy):
    folder = tmp_path / "run"
    rows = break_packs(nan_at(*range(8, 1000)))
    with pytest.raises(Diverged, match="10th time in a row") as stopped:
        small.go(folder, policy, "engine.steps=40")
    assert stopped.value.exit_code == 6
    assert len(alerts(folder)) == 10
    kept = [json.loads(path.read_text())["rows"] for path in folder.glob("bad_batches/*/rows.json")]
    assert all(pack in kept for pack in rows[7:])
    assert_finite(folder)


def test_going_back_to_the_same_step_for_ever_ends(small, tmp_path, monkeypatch):
    """Weights that diverge two steps after each return: the good step in between must not hide it."""
    folder = tmp_path / "run"

    def diverges_in_step_six(engine, training, objective, packs, stopped):
        if training.progress.step == 5:
            raise NonFinite("a loss of nan", packs, 0)
        return train_step(engine, training, objective, packs, stopped)

    monkeypatch.setattr(loop, "train_step", diverges_in_step_six)
    with pytest.raises(Diverged, match="10th time in a row"):
        small.go(folder, ROLL_BACK, "engine.steps=200", "engine.save.every_steps=4")
    assert_finite(folder)


def fp16_training() -> Training:
    """No processor multiplies fp16, but the scale is plain arithmetic."""
    config = EngineConfig(precision="fp32", device="cpu")
    models = {"policy": Engine(config).builder(ModelConfig(path="builtin:tiny-llama"), Lora()).policy()}
    return Training(config, models, torch.float16, 10, lambda name: 1.0)


def test_the_fp16_loss_scale_halves_at_an_overflow_and_doubles_after_2000_steps():
    training = fp16_training()
    assert training.progress.loss_scale == FIRST_LOSS_SCALE
    assert training.shrink_loss_scale()
    assert training.progress.loss_scale == FIRST_LOSS_SCALE / 2
    for _ in range(1999):
        training.grow_loss_scale()
    assert training.progress.loss_scale == FIRST_LOSS_SCALE / 2
    training.shrink_loss_scale()  # an overflow begins the count anew
    for _ in range(2000):
        training.grow_loss_scale()
    assert training.progress.loss_scale == FIRST_LOSS_SCALE / 2


def test_at_a_scale_of_one_it_is_not_the_scales_fault():
    training = fp16_training()
    halvings = 0
    while training.shrink_loss_scale():
        halvings += 1
    assert 2.0**halvings == FIRST_LOSS_SCALE
    assert training.progress.loss_scale == 1.0


def test_bf16_and_fp32_have_no_scale():
    training = fp16_training()
    training.scales_loss, training.progress.loss_scale = False, 1.0
    assert not training.shrink_loss_scale()
    for _ in range(2000):
        training.grow_loss_scale()
    assert training.progress.loss_scale == 1.0


@pytest.fixture
def scaled(monkeypatch) -> None:
    """Runs whose losses are scaled as in fp16, though they compute in fp32."""
    begin = Training.__init__

    def begin_scaled(self, *given):
        begin(self, *given)
        self.scales_loss, self.progress.loss_scale = True, FIRST_LOSS_SCALE

    monkeypatch.setattr(Training, "__init__", begin_scaled)


def test_a_scaled_run_learns_the_same(small, tmp_path, request):
    """A power of two is exact in binary, and is taken out again before clipping."""
    plain = small.go(tmp_path / "plain")
    request.getfixturevalue("scaled")
    found = small.go(tmp_path / "scaled")
    assert (found["curve"], found["final"], found["state"]) == (plain["curve"], plain["final"], plain["state"])


def test_an_overflow_halves_the_scale_and_is_no_divergence(small, scaled, break_packs, tmp_path):
    """Even where a recipe says stop: the step is left out, and nobody is alarmed."""
    folder = tmp_path / "run"
    break_packs(inf_gradient_at(5))
    found = small.go(folder)
    progress = json.loads(found["progress"])
    assert (progress["skipped"], progress["loss_scale"]) == (1, FIRST_LOSS_SCALE / 2)
    assert [line["skipped"] for line in steps(folder)] == [False, True, False, False, False, False]
    assert alerts(folder) == []


def test_a_loss_that_is_nan_is_not_the_scales_fault(small, scaled, break_packs, tmp_path):
    break_packs(nan_at(5))
    with pytest.raises(Diverged, match="a loss of nan"):
        small.go(tmp_path / "run")

"""Hooks see what happens, and none of them can end the training."""

import io
import logging
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console as Screen
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from danlu.core.errors import UserError
from danlu.engine.hooks import console, plot
from danlu.engine.hooks.base import Hook, Listener, Listeners, hooks
from danlu.engine.metrics import read_metrics
from danlu.engine.records import EvalRecord, RunFacts, StepRecord, Summary


def step(number: int, loss: float = 2.0, **facts: object) -> StepRecord:
    known = {"epoch": number / 10, "lr": 1e-4, "grad_norm": 0.5, "tokens": 100, "trained_tokens": 60, "seconds": 0.1}
    return StepRecord(number, 10, loss=loss, tokens_per_second=1000.0, **(known | facts))


def measured(number: int) -> EvalRecord:
    return EvalRecord(number, 1.5, sources={"books": 1.0, "网页": 2.0})


SUMMARY = Summary(10, 1.25, tokens=1000, trained_tokens=600, seconds=2.0, eval_loss=1.5, skipped_steps=1)


@pytest.fixture
def run(tmp_path: Path) -> RunFacts:
    return RunFacts(tmp_path / "my run", 10)


@pytest.fixture(autouse=True)
def folder(run: RunFacts) -> Path:
    run.folder.mkdir()
    return run.folder


def tell_everything(listener: Listener, folder: Path) -> None:
    listener.on_eval(measured(0))
    for number in range(1, 11):
        listener.on_step(step(number, loss=3 / number))
    listener.on_alert(4, "a step was skipped")
    listener.on_save(10, folder / "step-000010")
    listener.on_eval(measured(10))
    listener.on_end(SUMMARY)


def test_a_hook_that_fails_is_named_once_and_the_others_go_on(run, folder, caplog):
    heard = []

    class Broken(Hook):
        def start(self, run: RunFacts) -> Listener:
            return SimpleNamespace(on_step=lambda record: 1 / 0, close=lambda: 1 / 0)

    class Unstartable(Hook):
        def start(self, run: RunFacts) -> Listener:
            raise OSError("no network")

    class Good(Hook):
        def start(self, run: RunFacts) -> Listener:
            return SimpleNamespace(
                on_step=lambda record: heard.append(record.step), close=lambda: heard.append("close")
            )

    with caplog.at_level(logging.WARNING), Listeners([Broken(), Unstartable(), Good()], run) as listeners:
        for number in (1, 2):
            listeners.on_step(step(number))
    assert heard == [1, 2, "close"]
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "the hook Unstartable failed", "the hook Broken failed",
    ]  # fmt: skip


def test_what_a_person_must_mend_is_not_swallowed(run):
    class Mistaken(Hook):
        def start(self, run: RunFacts) -> Listener:
            raise UserError("no such project")

    with pytest.raises(UserError):
        Listeners([Mistaken()], run)


@pytest.mark.parametrize("name", sorted(set(hooks) - {"wandb", "trackio"}))
def test_every_hook_hears_everything_and_leaves_nothing_behind(name, run, folder, caplog):
    with Listeners([hooks["metrics_file"](), hooks[name]()], run) as listeners:
        tell_everything(listeners, folder)
    assert caplog.text == ""
    assert [path.name for path in folder.rglob("*.tmp*")] == []


def test_metrics_file_has_one_line_for_each_event(run, folder):
    with Listeners([hooks["metrics_file"]()], run) as listeners:
        tell_everything(listeners, folder)
        listeners.on_stop(10, "asked to")
    lines = read_metrics(folder / "metrics.jsonl")
    events = ["start", "eval", *["step"] * 10, "alert", "save", "eval", "end", "stop"]
    assert [line["event"] for line in lines] == events
    assert lines[2] | {"time": 0} == {
        "event": "step", "step": 1, "time": 0, "num_steps": 10, "epoch": 0.1, "loss": 3.0, "lr": 1e-4, "grad_norm": 0.5,
        "tokens": 100, "trained_tokens": 60, "seconds": 0.1, "tokens_per_second": 1000.0, "ranks": 1, "mfu": None,
        "memory_bytes": None, "metrics": {}, "waited_seconds": 0.0, "waited": {}, "skipped": False,
    }  # fmt: skip


def test_the_plot_is_a_picture_even_of_chinese_sources_and_diverged_losses(run, folder):
    with Listeners([hooks["metrics_file"](), hooks["plot"]()], run) as listeners:
        tell_everything(listeners, folder)
        listeners.on_step(step(11, loss=math.nan))
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("every_seconds", "drawings"), [(1e-9, 1), (1000, 0)])
def test_the_plot_takes_a_fiftieth_of_the_time_at_most(run, folder, monkeypatch, every_seconds, drawings):
    drawn = []
    monkeypatch.setattr(plot, "draw", lambda folder: time.sleep(0.1) or drawn.append(folder))
    listener = hooks["plot"](every_seconds=every_seconds).start(run)
    for number in range(5):
        listener.on_step(step(number))
    assert len(drawn) == drawings
    listener.on_step(step(6))
    listener.close()
    assert len(drawn) == drawings + 1  # one more at the end


def test_a_drawing_that_fails_is_not_tried_at_every_step(run, folder, caplog):
    with Listeners([hooks["plot"](every_seconds=1e-9)], run) as listeners:
        for number in range(3):
            listeners.on_step(step(number))
    assert caplog.text.count("the hook Plot failed") == 1
    assert "metrics.jsonl" in caplog.text


def test_smoothing_is_llama_factorys():
    losses = [4.0, 2.0, 1.0]
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * 3)) - 0.5)
    second = 4.0 * weight + 2.0 * (1 - weight)
    assert plot.smooth(losses) == pytest.approx([4.0, second, second * weight + 1.0 * (1 - weight)])
    assert plot.smooth([]) == []


def screen(terminal: bool) -> Screen:
    return Screen(file=io.StringIO(), force_terminal=terminal, width=200)


def test_plain_lines_come_now_and_then_and_at_the_end(run, folder):
    shown = screen(False)
    listener = console.Lines(run, shown, every_seconds=1000)
    tell_everything(listener, folder)
    lines = shown.file.getvalue().splitlines()
    assert [line for line in lines if line.startswith("step") and "loss 3.0" in line]
    assert sum("tokens/s" in line and line.startswith("step") for line in lines) == 2
    assert "step 10/10  loss 0.3000  lr 1.00e-04  1,000 tokens/s  0:00:00 left" in lines
    assert "step 4  WARNING: a step was skipped" in lines
    assert "step 10  held-out loss 1.5000  books 1.0000  网页 2.0000" in lines
    assert any("10 (1 skipped)" in line for line in lines)


def test_a_line_shows_what_is_known(run, folder):
    clock = console.Clock(run)
    words = clock.words(step(5, mfu=0.41, memory_bytes=3 << 30, skipped=True))
    assert "mfu 41%" in words
    assert "3.0 GiB" in words
    assert words.endswith("SKIPPED")
    clock.saved = console.time.monotonic()
    assert "saved 0:00:00 ago" in clock.words(step(6))


def test_the_bar_is_taken_down_when_the_run_breaks(run, folder):
    bar = console.Bar(run, screen(True))
    bar.on_step(step(3))
    bar.on_alert(3, "[not markup]")
    bar.close()
    assert "[not markup]" in bar.screen.file.getvalue()
    assert bar.screen.file.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_tensorboard_purges_what_a_killed_process_drew(run, folder):
    with Listeners([hooks["tensorboard"]()], run) as listeners:
        for number in range(1, 6):
            listeners.on_step(step(number, loss=float(number)))
    with Listeners([hooks["tensorboard"]()], RunFacts(folder, 10, step=3)) as listeners:
        listeners.on_step(step(4, loss=40.0))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 3), (4, 40)]


class FakeTracker(SimpleNamespace):
    """Stands for wandb and trackio, which are not installed where tests run."""

    def __init__(self) -> None:
        super().__init__(inits=[], logged=[], finished=0)

    def init(self, **options: object) -> "FakeTracker":
        self.inits.append(options)
        return self

    def log(self, scalars: dict, step: int) -> None:
        self.logged.append((step, scalars))

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_get_one_run_however_often_it_is_resumed(name, run, folder, monkeypatch):
    fake = FakeTracker()
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.delitem(sys.modules, f"danlu.engine.hooks.{name}", raising=False)
    hook = hooks[name](project="p")
    for done in (0, 10):
        with Listeners([hook], RunFacts(folder, 10, step=done, config={"seed": 1})) as listeners:
            tell_everything(listeners, folder)
    first, second = fake.inits
    assert first["project"] == "p"
    assert first["config"] == {"seed": 1}
    assert first["name"] == second["name"] == "my run"
    assert first.get("id") == second.get("id")
    assert fake.finished == 2
    assert fake.logged[1] == (1, step(1, loss=3.0).scalars())
    assert fake.logged[0][1]["eval/loss/books"] == 1.0
    monkeypatch.delitem(sys.modules, f"danlu.engine.hooks.{name}")

"""The best weights and the end of patience are the same for a run that was killed or stopped on the way."""

import os
import signal
from itertools import count
from pathlib import Path

import pytest

from danlu.engine import session
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.metrics import read_metrics
from danlu.engine.session import Session
from danlu.evals.held_out import HeldOut
from danlu.objectives.pretrain import Pretrain
from tests.faults import run
from tests.runs.small_run import SmallRun, digest

STEPS = 10
SETTINGS = (f"engine.steps={STEPS}", "engine.evaluate.every_steps=2", "engine.save.every_steps=3")
BEST = "engine.evaluate.keep_best=true"
PATIENT = "engine.evaluate.patience=2"
FALLS_TO_4 = {0: 6.0, 2: 5.0, 4: 4.0, 6: 4.5, 8: 4.2, 10: 4.1}
ONLY_RISES = {step: 5.0 + step for step in FALLS_TO_4}
FALLS_TO_THE_END = {step: 6.0 - step / 10 for step in FALLS_TO_4}


@pytest.fixture
def small(tmp_path) -> SmallRun:
    return SmallRun(tmp_path, SETTINGS)


@pytest.fixture(
    params=[FALLS_TO_4, ONLY_RISES, pytest.param(FALLS_TO_THE_END, marks=pytest.mark.slow)],
    ids=["falls to 4", "only rises", "falls to the end"],
)
def losses(request, monkeypatch) -> dict[int, float]:
    """What the held-out loss is said to be after each step; the packs are read all the same."""
    measure, held_out_loss = Session.measure, session.held_out_loss
    planned, now = request.param, []

    def at_a_step(self, *given):
        now[:] = [self.training.progress.step]
        measure(self, *given)

    def as_planned(*given):
        held_out_loss(*given)
        return HeldOut(planned[now[0]], {})

    monkeypatch.setattr(Session, "measure", at_a_step)
    monkeypatch.setattr(session, "held_out_loss", as_planned)
    return planned


def best_step(losses: dict[int, float]) -> int:
    return min(losses, key=losses.__getitem__)


def interrupted(small: SmallRun, folder: Path, name: str, at: int, number: signal.Signals) -> int:
    """Go on, and be signalled before the `at`-th pack is learnt from or measured; returns the exit code."""

    def go() -> None:
        call, times = getattr(Pretrain, name), count(1)

        def struck(*given):
            if next(times) == at:
                os.kill(os.getpid(), number)
            return call(*given)

        setattr(Pretrain, name, struck)
        small.go(folder)

    return run(go, under=small.home).code


def evals(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "eval"]


def test_the_best_weights_are_the_artifact(small, losses, tmp_path):
    best = best_step(losses)
    found = small.go(tmp_path / "run", BEST)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.pointer("best").name == f"step-{best:06d}"
    weights = digest(checkpoints.pointer("best") / "adapter_model.safetensors")
    assert found["final"] == {"adapter_model.safetensors": weights}
    last = digest(next(iter(checkpoints)) / "adapter_model.safetensors")
    assert (weights == last) == (best == STEPS)


def test_without_keep_best_the_last_weights_are(small, losses, tmp_path):
    found = small.go(tmp_path / "run")
    newest = next(iter(Checkpoints(tmp_path / "run" / "checkpoints")))
    assert newest.name == f"step-{STEPS:06d}"
    assert found["final"] == {"adapter_model.safetensors": digest(newest / "adapter_model.safetensors")}


def test_patience_ends_the_run_and_stays_at_its_end(small, losses, tmp_path):
    folder, best = tmp_path / "run", best_step(losses)
    found = small.go(folder, PATIENT)
    assert len(found["curve"]) == min(best + 4, STEPS)  # two measurements later
    assert small.go(folder, PATIENT) == found


LOSS, MEASURE = ("loss", (9, 7, 8)), ("measure", (1, 2, 3, 3))
"""learning or measuring, and before which pack of each start"""


@pytest.mark.parametrize(
    ("number", "name", "times"),
    [
        (signal.SIGKILL, *LOSS),
        (signal.SIGTERM, *MEASURE),
        pytest.param(signal.SIGTERM, *LOSS, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, *MEASURE, marks=pytest.mark.slow),
    ],
)
def test_however_often_it_is_interrupted(small, losses, tmp_path, number, name, times):
    small = SmallRun(small.home, (*SETTINGS, BEST, PATIENT))
    expected = run(lambda: small.go(tmp_path / "oracle"), under=tmp_path).value
    folder = tmp_path / "run"
    codes = [interrupted(small, folder, name, at, number) for at in times]
    assert codes[0] == (75 if number == signal.SIGTERM else -number)
    found = run(lambda: small.go(folder), under=tmp_path).value
    del found["progress"], expected["progress"]  # the last checkpoint may be older than its measurement
    assert found == expected
    assert evals(folder) == evals(tmp_path / "oracle")

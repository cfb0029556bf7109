"""A stop is a wish, wherever it comes: all is saved, the exit code says so, and the printed command goes on."""

import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from danlu.data import tokenise
from danlu.data.chunks import Work
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.metrics import read_metrics
from danlu.objectives.pretrain import Pretrain
from danlu.runs.start import go_on
from tests.faults import Outcome, run
from tests.runs.small_run import SmallRun, result

PLACES = {
    "the first step": (Pretrain, "loss", 1),
    "between the packs of a step": (Pretrain, "loss", 5),
    "the last step": (Pretrain, "loss", -1),
    "the first measuring": (Pretrain, "measure", 1),
    "measuring in the middle": (Pretrain, "measure", 3),
    "the last measuring": (Pretrain, "measure", -2),
    "a save": (Checkpoints, "_write", 1),
    "the last save": (Checkpoints, "_write", -1),
}
LONG_MEASURING = ("data.held_out=5", "data.max_length=32", "data.pack_tokens=64")


class Trial:
    """A run, how it ends undisturbed, and how often each place is passed."""

    def __init__(self, home: Path) -> None:
        self.home, self.small = home, SmallRun(home, LONG_MEASURING)
        self.passed: dict[str, int] = {}
        with pytest.MonkeyPatch.context() as patch:
            for thing, name in {place[:2] for place in PLACES.values()}:
                patch.setattr(thing, name, self._counted(name, getattr(thing, name)))
            self.expected = self.small.go(home / "clean")

    def _counted(self, name: str, call: Callable) -> Callable:
        def counted(*given: Any, **options: Any) -> Any:
            self.passed[name] = self.passed.get(name, 0) + 1
            return call(*given, **options)

        return counted

    def folder(self, name: str) -> Path:
        folder = self.home / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def stopped(self, folder: Path, place: tuple[Any, str, int], *numbers: signal.Signals) -> Outcome:
        """Go on with the run, and signal it at a place."""
        thing, name, at = place
        at = at if at > 0 else self.passed[name] + 1 + at
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(thing, name, signalling(getattr(thing, name), at, *numbers))
            return run(lambda: self.small.go(folder), under=self.home)

    def resumed(self, outcome: Outcome) -> dict:
        """What the printed command ends with."""
        words = shlex.split(re.search(r"`danlu resume (.*)` goes on", outcome.error)[1])
        after = run(lambda: result_of(Path(words[0])), under=self.home)
        assert after.code == 0, after.error
        return after.value


def result_of(folder: Path) -> dict:
    go_on(folder)
    return result(folder)


def signalling(call: Callable, at: int, *numbers: signal.Signals) -> Callable:
    """The call, which brings signals at its `at`-th time."""
    times = count(1)

    def brings(*given: Any, **options: Any) -> Any:
        if next(times) == at:
            for number in numbers:
                signal.raise_signal(number)
        return call(*given, **options)

    return brings


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Trial:
    return Trial(tmp_path_factory.mktemp("a run"))  # the printed command must survive the blank


@pytest.mark.parametrize("place", PLACES)
def test_a_stop_anywhere_is_saved_and_resumed(trial, place):
    folder = trial.folder("stopped")
    number = random.Random(place).choice([signal.SIGTERM, signal.SIGINT])
    outcome = trial.stopped(folder, PLACES[place], number)
    assert outcome.code == (0 if place == "the last save" else codes(number)), outcome.error
    if outcome.code == 0:  # nothing was left to do but to write the artifact
        assert outcome.value == trial.expected
    else:
        assert next(iter(Checkpoints(folder / "checkpoints")), None), "nothing was saved"
        assert read_metrics(folder / "metrics.jsonl")[-1]["event"] == "stop"
        found, expected = trial.resumed(outcome), dict(trial.expected)
        if place in ("the last step", "the last measuring"):
            # the checkpoint of the last step is older than its measurement, which every later start makes again
            del found["progress"], expected["progress"]
        assert found == expected


def codes(number: signal.Signals) -> int:
    return {signal.SIGTERM: 75, signal.SIGINT: 130}[number]


@pytest.mark.parametrize("at", [4, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 2, 3, 5, 6))])
def test_measuring_stops_within_a_pack_and_is_made_again(trial, at):
    """Whichever pack of it the signal meets, no later one is read; the curve has no gap and nothing twice."""
    folder = trial.folder("measuring")
    read = []
    measure = Pretrain.measure

    def counted(*given: Any) -> Any:
        read.append(1)
        (folder / "read").write_text(str(len(read)))
        return measure(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretrain, "measure", counted)
        outcome = trial.stopped(folder, (Pretrain, "measure", at), signal.SIGTERM)
    assert outcome.code == 75
    assert int((folder / "read").read_text()) == at
    assert trial.resumed(outcome) == trial.expected


def test_there_are_several_packs_to_measure(trial):
    assert trial.passed["measure"] >= 6
    assert len(trial.expected["evals"]) == 3


@pytest.mark.parametrize(
    "place",
    ["a save", *(pytest.param(place, marks=pytest.mark.slow) for place in PLACES if place != "a save")],
)
def test_a_second_ctrl_c_ends_at_once_and_loses_nothing(trial, place):
    folder = trial.folder("twice")
    outcome = trial.stopped(folder, PLACES[place], signal.SIGINT, signal.SIGINT)
    assert outcome.code == -signal.SIGINT
    after = run(lambda: trial.small.go(folder), under=trial.home)
    assert after.value == trial.expected, after.error


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_storm_of_stops_finishes(trial, seed):
    """Every start is told to stop after a pack or some, until there is nothing left to do."""
    folder, draw = trial.folder("storm"), random.Random(seed)
    starts, outcome = 0, None
    while outcome is None or outcome.code:
        place = (Pretrain, draw.choice(["loss", "loss", "measure"]), draw.randint(1, 7))
        outcome = trial.stopped(folder, place, signal.SIGTERM)
        assert outcome.code in (0, 75), outcome.error
        starts += 1
    assert starts > 3
    assert outcome.value == trial.expected


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, 1),
        (signal.SIGINT, 2),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
    ],
)
def test_a_stop_while_rows_are_tokenised(trial, monkeypatch, number, workers):
    """With workers the signal goes to all of them, as Ctrl-C does."""
    folder = trial.folder("tokenising")
    cache = trial.folder("other cache")
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 4)
    more = (f"data.workers={workers}", f"data.cache={cache}")
    parent = os.getpid()

    def stops(work: Work, rows: Any) -> Any:
        if any(row == 8 for (_, row), _ in rows):
            os.killpg(os.getpgrp(), number)
        return call(work, rows)

    def alone() -> None:
        assert os.getpid() != parent
        os.setpgrp()
        trial.small.go(folder, *more)

    call = Work.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Work, "__call__", stops)
        outcome = run(alone, under=trial.home)
    assert outcome.code == codes(number), outcome.error
    assert "stopped before training" in outcome.error
    assert list(cache.glob("tokens/*/rows")) == []
    assert [path.name for path in cache.rglob("*") if ".tmp-" in path.name] == []
    assert multiprocessing.active_children() == []
    assert trial.resumed(outcome) == trial.expected

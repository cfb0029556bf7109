"""Kill whole runs at every file operation, and between: the next start ends with the same curve and weights."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import count, product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from danlu.data import loader
from danlu.objectives.pretrain import Pretrain
from tests.faults import Fault, every, run
from tests.runs.small_run import BF16, FULL, TOKENS, SmallRun

CHOICES = ({"lora": (), "full": FULL}, {"rows": (), "tokens": TOKENS}, {"fp32": (), "bf16": BF16})
KINDS = {"-".join(names): names for names in product(*CHOICES)}
QUICK = ("lora-rows-fp32", "full-tokens-bf16")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """In memory where there is one: a kill does not care, and an fsync there costs nothing."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def rows_wait_in_the_pool(monkeypatch) -> None:
    """A pool of six: the cursor of `tokens` batches is in the middle of an epoch, with rows that wait."""
    monkeypatch.setattr(loader, "LOOK_AHEAD", 6)


def settings_of(kind: str) -> tuple[str, ...]:
    return tuple(word for choice, name in zip(CHOICES, KINDS[kind], strict=True) for word in choice[name])


class Trial:
    """One kind of run, and how it ends when nobody disturbs it."""

    def __init__(self, home: Path, kind: str) -> None:
        self.home, self.small = home / kind, SmallRun(home, settings_of(kind))
        self.home.mkdir()
        warm = self.home / "warm"
        self.small.go(warm)  # torch imports half of itself at the first step; not in every child
        shutil.rmtree(warm)
        clean = run(self.at("clean"), under=self.home)
        assert clean.code == 0, clean.error
        self.operations, self.expected = clean.operations, clean.value

    def at(self, name: str) -> Callable[[], dict]:
        """The run in a folder of this name."""
        return lambda: self.small.go(self.home / name)

    def strike(self, name: str, fault: Fault | None = None, kill_after: float | None = None) -> None:
        """Kill a run, go on with it, and compare."""
        struck = run(self.at(name), fault, under=self.home, kill_after=kill_after)
        assert struck.died or kill_after is not None, (name, struck)
        after = run(self.at(name), under=self.home)
        assert after.code == 0, (name, after.error)
        for what, expected in self.expected.items():
            assert after.value[what] == expected, (name, what)
        shutil.rmtree(self.home / name)


@pytest.fixture(scope="module")
def trial(home: Path) -> Callable[[str], Trial]:
    made: dict[str, Trial] = {}

    def of(kind: str) -> Trial:
        if kind not in made:
            made[kind] = Trial(home, kind)
        return made[kind]

    return of


def all_or_quick(kind: str) -> object:
    return pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("kind", [all_or_quick(kind) for kind in KINDS])
def test_the_runs_have_what_makes_resuming_hard(trial, kind):
    one = trial(kind)
    assert {"mkdir", "save", "write", "fsync", "rename", "replace", "unlink", "rmdir"} <= set(one.operations)
    assert len(one.expected["curve"]) >= 6
    assert len(one.expected["evals"]) >= 3
    assert one.expected["leftovers"] == []
    assert one.expected["twice"] == []


@pytest.mark.parametrize("kind", QUICK)
def test_kill_and_tear_at_some_operations(trial, kind):
    one = trial(kind)
    first = 3 * QUICK.index(kind)
    faults = list(every(one.operations, kill=True, tear=True))
    for fault in faults[first :: len(faults) // 5]:
        one.strike(f"{fault.kind}-{fault.at}", fault)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kill_and_tear_at_every_operation(trial, kind):
    one = trial(kind)
    stride = 1 if kind in QUICK else 11  # all of it takes half an hour
    for fault in every(one.operations, stride, kill=True, tear=True):
        one.strike(f"{fault.kind}-{fault.at}", fault)


@pytest.mark.parametrize("kind", [all_or_quick(kind) for kind in KINDS])
def test_kill_in_the_middle_of_accumulation(trial, kind, monkeypatch):
    """Between two packs of a step, at three starts, each a step or two later than the one before."""
    one = trial(kind)
    for packs in (2, 5, 9):
        with monkeypatch.context() as patch:
            patch.setattr(Pretrain, "loss", dying(Pretrain.loss, packs))
            assert run(one.at("packs"), under=one.home).died
    after = run(one.at("packs"), under=one.home)
    assert after.value == one.expected, after.error
    shutil.rmtree(one.home / "packs")


def dying(loss: Callable, packs: int) -> Callable:
    """The loss, until the process is killed at one of its packs."""
    numbers = count(1)

    def dies(*given):
        if next(numbers) == packs:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*given)

    return dies

"""What only decides memory and speed may change when a run resumes: the same rows in each step, the same numbers."""

from itertools import product
from pathlib import Path

import pytest

from danlu.data import tokenise
from danlu.engine import loop
from danlu.engine.metrics import read_metrics
from danlu.engine.step import train_step
from tests.faults import run
from tests.runs.small_run import FULL, SmallRun

WITHOUT_DROPOUT = ("adapter.dropout=0", "engine.save.every_steps=3")
CHANGES = {
    "one row a pack": ("data.pack_tokens=2",),
    "one pack a step": ("data.pack_tokens=4096",),
    "other packs, two workers": ("data.pack_tokens=100", "data.workers=2"),
    "recomputed blocks": ("engine.gradient_checkpointing=full",),
}


@pytest.fixture
def rows_of_steps(monkeypatch) -> dict[int, list[str]]:
    """Which rows each step learnt from, in this process."""
    seen: dict[int, list[str]] = {}

    def noted(engine, training, objective, packs, stopped):
        step = training.progress.step + 1
        if step == seen.get(0):
            raise KeyboardInterrupt  # the machine goes away
        seen[step] = sorted(segment.where for pack in packs for segment in pack.segments)
        return train_step(engine, training, objective, packs, stopped)

    monkeypatch.setattr(loop, "train_step", noted)
    return seen


QUICK = (((), "one row a pack"), (FULL, "other packs, two workers"))


@pytest.mark.parametrize(
    ("adapter", "change"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in product(((), FULL), CHANGES)],
)
def test_a_resumed_run_may_be_packed_otherwise(tmp_path, monkeypatch, rows_of_steps, change, adapter):
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 4)
    small = SmallRun(tmp_path, (*WITHOUT_DROPOUT, *adapter))
    small.go(tmp_path / "oracle")
    expected = dict(rows_of_steps)
    assert len(expected[6]) == 4  # the last step is a short one

    rows_of_steps[0] = 5  # in the fifth step, two after the newest checkpoint
    with pytest.raises(KeyboardInterrupt):
        small.go(tmp_path / "run")
    rows_of_steps.clear()
    small.go(tmp_path / "run", *CHANGES[change])
    assert rows_of_steps == {step: expected[step] for step in (4, 5, 6)}
    for event in ("step", "eval"):
        ours, theirs = numbers(tmp_path / "run", event), numbers(tmp_path / "oracle", event)
        assert [step for step, _ in ours] == [step for step, _ in theirs]
        assert [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], rel=1e-6)


def numbers(folder: Path, event: str) -> list[tuple[int, float]]:
    lines = read_metrics(folder / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if line["event"] == event]


def test_any_number_of_workers_makes_the_same_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 3)
    for workers in (1, 3):
        (tmp_path / str(workers)).mkdir()
    found = [SmallRun(tmp_path / str(n), (f"data.workers={n}",)) for n in (1, 3)]
    outcomes = [run(lambda small=small: small.go(small.home / "run"), under=small.home) for small in found]
    assert all(outcome.code == 0 for outcome in outcomes), [outcome.error for outcome in outcomes]
    assert outcomes[0].value["curve"] == outcomes[1].value["curve"]
    assert outcomes[0].value["final"] == outcomes[1].value["final"]

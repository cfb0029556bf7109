"""A run over a stream, or over a mixture, ends alike whether it was stopped or not."""

import json

import pytest

from danlu.engine import loop
from danlu.engine.step import train_step
from tests.runs.small_run import SmallRun, write_rows

STREAM = ("data.streaming={window: 8, lanes: 1}", "engine.steps=7", "data.workers=0")
SHARES = ("data.mixture={name: shares, shares: {rows: 2, other: 1}, by: tokens}", "engine.steps=7")


@pytest.mark.parametrize("settings", [STREAM, (*STREAM, "data.batch={tokens: 128}"), (*STREAM, *SHARES), SHARES])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, settings):
    if SHARES[0] in settings:
        other = write_rows(tmp_path / "other.jsonl", 9)
        settings = (*settings, f"data.sources={{rows: {tmp_path / 'rows.jsonl'}, other: {other}}}")
    small = SmallRun(tmp_path, settings)
    want = small.go(tmp_path / "oracle")

    def gone(engine, training, *more):
        if training.progress.step == 5:
            raise KeyboardInterrupt  # the machine goes away, a step after the newest checkpoint
        return train_step(engine, training, *more)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", gone)
        with pytest.raises(KeyboardInterrupt):
            small.go(tmp_path / "run")
    assert small.go(tmp_path / "run") == want
    reports = [json.loads((tmp_path / name / "data_report.json").read_text()) for name in ("run", "oracle")]
    assert reports[0]["realised"] == reports[1]["realised"]

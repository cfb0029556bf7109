"""The command line in this process, and words that name a tiny model and a few rows."""

import json
import sys

import pytest

from danlu.cli.app import main


@pytest.fixture
def danlu_says(monkeypatch, capfd):
    """`danlu_says("train", ..., code=2)`: what was printed, after checking the exit code."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def run(*words: str, code: int = 0):
        monkeypatch.setattr(sys, "argv", ["danlu", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        assert (end.value.code or 0) == code, said.err
        return said

    return run


@pytest.fixture
def rows(tmp_path) -> list[str]:
    """Settings of a run on a tiny model."""
    path = tmp_path / "rows.jsonl"
    lines = [{"instruction": f"is it {n}?", "output": "yes it is " * (n % 3 + 1)} for n in range(12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        "model.path=builtin:tiny-llama",
        f"data.sources={path}",
        f"data.cache={tmp_path / 'cache'}",
        "data.workers=1",
        "data.batch={rows: 4}",
    ]

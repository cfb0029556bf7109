"""A source is written in any of four ways."""

import pytest

from danlu.data.sources import Source, labels, listed


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("x/a.jsonl", ["a"]),
        (["x/a.jsonl", "y/a.jsonl.zst"], ["a", "a-2"]),
        ({"path": "x/a.jsonl", "name": "mine"}, ["mine"]),
        ({"one": "x/a.jsonl", "two": {"path": "y/a.jsonl.zst", "max_rows": 3}}, ["one", "two"]),
    ],
)
def test_sources_are_written_in_any_of_four_ways(given, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("x/a.jsonl", "y/a.jsonl.zst"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    assert labels([Source(**one) for one in listed(given)]) == names

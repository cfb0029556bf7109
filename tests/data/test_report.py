"""Every lost row is told with its place, on the terminal, as JSON and as a page that the data cannot write on."""

import io
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from danlu.core.errors import DataError, SetupError
from danlu.data.config import DataConfig
from danlu.data.duplicates import repeated
from danlu.data.limits import Limits
from danlu.data.near_duplicates import near_duplicates
from danlu.data.report import OTHER, REASONS, DataReport, SourceReport
from danlu.runs.report import report
from danlu.samples import Conversation

NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[31m &amp;"
GOOD = [{"instruction": f"question {n}", "output": f"answer {n}"} for n in range(6)]
BAD = [{"instruction": "q", "output": ""}, {"instruction": "q", "output": " "}, GOOD[2]]


@pytest.fixture
def reported(tmp_path, tokenizer):
    """`reported(sources=...)`: (page, facts, what was said)."""

    def run(near=None, examples=3, **settings):
        config = DataConfig(**{"cache": tmp_path / "cache", "workers": 1, **settings})
        console = Console(file=io.StringIO(), width=100)
        to = tmp_path / "out.html"
        report(config, tokenizer, (Conversation,), to=to, near=near, examples=examples, console=console)
        return to.read_text(), json.loads(to.with_suffix(".json").read_text()), console.file.getvalue()

    return run


def test_every_loss_is_counted_with_its_place(reported, rows_file):
    path = rows_file([*GOOD, *BAD, {"instruction": "q", "output": "word " * 99}])
    page, facts, said = reported(sources={"talk": str(path)}, max_length=60)
    one = facts["sources"]["talk"]
    assert (one["rows_in"], one["rows_out"]) == (10, 8)
    assert one["dropped"]["'output' is empty"] == {"count": 2, "places": [f"{path}:7", f"{path}:8"]}
    assert one["empty_answers"] == {"count": 2, "places": [f"{path}:7", f"{path}:8"]}
    assert one["duplicates"] == {"count": 1, "places": [f"{path}:9"]}
    assert one["truncated"] == {"count": 1, "places": [f"{path}:10"]}
    assert one["tokens_lost"] > 0
    assert one["lengths"]["100"] == one["longest"] == 60
    assert sum(one["histogram"].values()) == 8
    assert facts["token_shares"] == {"talk": 1.0}
    for words in ("is empty", f"{path}:7", f"{path}:9", f"{path}:10"):
        assert words in page
        assert words in said


def test_the_report_of_a_run_has_the_same_facts(reported, loaded, rows_file):
    path = str(rows_file([*GOOD, *BAD]))
    _, facts, _ = reported(sources=path)
    assert facts == loaded(sources=path).report.to_dict() | {"over_limits": {}}


def test_shares_are_those_of_the_tokens(reported, rows_file):
    one, two = rows_file(GOOD, "one.jsonl"), rows_file(GOOD * 3, "two.jsonl")
    _, facts, said = reported(sources=[str(one), str(two)])
    assert facts["token_shares"] == {"one": 0.25, "two": 0.75}
    assert "25.0%" in said


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.given: set[tuple[str, str]] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.given |= {(name, value or "") for name, value in attrs}


def test_data_cannot_write_on_the_page(reported, rows_file):
    """A row, a reason, a file's name or a source's name is text."""
    rows = [{"messages": [{"role": who, "content": NASTY} for who in ("user", "assistant")]}]
    rows.append({"messages": [{"role": NASTY, "content": "a"}]})
    path = rows_file(rows, "<b>&.jsonl")
    page, _, said = reported(sources={NASTY: str(path)})
    found = Tags(page)
    assert not found.tags & {"script", "img", "b", "link", "iframe"}
    assert not [name for name, _ in found.given if name.startswith("on") or name in ("src", "href")]
    assert "{{ 7 * 7 }}" in page
    assert "\x1b" not in page + said
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_needs_nothing_from_elsewhere(reported, rows_file):
    page, _, _ = reported(sources=str(rows_file(GOOD)))
    assert not re.search(r"https?://|url\(|@import", page)


def test_the_trained_words_are_marked(reported, rows_file):
    page, _, _ = reported(sources=str(rows_file(GOOD)), examples=1)
    assert '<span class="trained">answer 0</span>' in page
    assert "question 0" in page
    assert "question 1" not in page


@pytest.mark.parametrize(
    ("limit", "found", "place"),
    [("dropped", 2, 7), ("empty_answers", 2, 7), ("duplicates", 1, 9), ("truncated", 1, 10)],
)
def test_data_over_a_limit_stops_with_its_places(limit, found, place, loaded, rows_file):
    path = rows_file([*GOOD, *BAD, {"instruction": "q", "output": "word " * 99}])
    told = loaded(sources={"talk": str(path)}, max_length=60).report
    Limits(**{limit: found / 10}).check(told)
    with pytest.raises(DataError) as raised:
        Limits(**{limit: found / 10 - 0.05}).check(told)
    said = str(raised.value)
    assert f"talk: {limit.replace('_', ' ')}: {found} of 10 rows ({found / 10:.2%})" in said
    assert f"{found / 10 - 0.05:.2%} allowed by data.limits.{limit} (first {path}:{place}" in said


def test_a_report_over_its_limits_is_written_and_then_an_error(reported, rows_file, tmp_path):
    with pytest.raises(DataError, match=r"over its limits:\n  talk: dropped: 2 of 9 rows"):
        reported(sources={"talk": str(rows_file([*GOOD, *BAD]))}, limits={"dropped": 0.1})
    assert "is over its limits" in (tmp_path / "out.html").read_text()


def test_a_file_of_ever_new_faults_does_not_fill_the_memory():
    told = SourceReport()
    for n in range(REASONS * 3):
        told.drop(f"unknown role {n}", f"f:{n}")
    assert told.rows_dropped == REASONS * 3
    assert len(told.dropped) == REASONS + 1
    assert told.dropped[OTHER].count == REASONS * 2


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_row_is_a_duplicate_when_an_earlier_one_is_the_same(rows):
    want = [n for n, row in enumerate(rows) if row in rows[:n]]
    assert repeated(np.array(rows, np.uint64)).tolist() == want


def test_rows_that_differ_in_a_word_are_near():
    pytest.importorskip("datasketch")
    random = np.random.default_rng(0)
    rows = [random.integers(0, 1000, 200) for _ in range(20)]
    changed = rows[3].copy()
    changed[100] = 5
    assert list(near_duplicates([*rows, changed, rows[7], rows[0][:3]], 0.8)) == [(20, 3), (21, 7)]


def test_near_duplicates_are_in_the_report(reported, rows_file):
    pytest.importorskip("datasketch")
    words = " ".join(f"word{n}" for n in range(80))
    rows = [*GOOD, {"instruction": words, "output": "one"}, {"instruction": words, "output": "two"}]
    page, facts, said = reported(sources={"talk": str(rows_file(rows))}, near=near_duplicates)
    assert facts["sources"]["talk"]["near_duplicates"]["count"] >= 1
    assert "rows.jsonl:8 like" in page
    assert "near duplicates (first" in said


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    monkeypatch.delitem(sys.modules, "danlu.data.near_duplicates")
    with pytest.raises(SetupError, match=r"near duplicates need datasketch: pip install 'danlu\[data\]'|pip install"):
        __import__("danlu.data.near_duplicates")


def test_an_empty_report_has_shares():
    assert DataReport({"a": SourceReport()}).shares() == {"a": 0.0}

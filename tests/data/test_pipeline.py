"""Rows are tokenised once, whatever happens to the process that does it, and every lost row is counted."""

import gzip
import json
import logging
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from danlu.core.errors import DataError
from danlu.data import tokenise
from danlu.data.chunks import Work
from danlu.data.config import DataConfig
from danlu.data.order import held_out_rows
from danlu.data.pipeline import load_data
from danlu.data.report import SourceReport
from danlu.data.tokenise import TokenMaker
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import Conversation, Document

SHARED = Path(__file__).parents[3] / "shared/data"


def tokens_of(data) -> list[tuple[list[int], list[bool]]]:
    return [tuple(part.tolist() for part in one.row(n)) for one in data.sets for n in range(len(one))]


def no_building(*_):
    raise AssertionError("tokenised again")


def test_the_second_time_nothing_is_tokenised(loaded, alpaca_file, monkeypatch):
    first = loaded(sources=str(alpaca_file))
    monkeypatch.setattr(TokenMaker, "build", no_building)
    assert tokens_of(loaded(sources=str(alpaca_file))) == tokens_of(first)
    assert loaded(sources=str(alpaca_file)).report == first.report


@pytest.mark.parametrize(
    "change",
    [
        {"template": "vicuna"},
        {"max_length": 50},
        {"too_long": "drop"},
        {"sources": {"system": "S"}},
        {"sources": {"max_rows": 3}},
    ],
)
def test_another_setting_is_tokenised_anew(change, loaded, alpaca_file):
    first = loaded(sources=str(alpaca_file))
    source = {"path": str(alpaca_file), **change.pop("sources", {})}
    assert loaded(sources=source, **change).sets[0].key != first.sets[0].key


def test_a_changed_file_is_tokenised_anew(loaded, alpaca_file):
    first = loaded(sources=str(alpaca_file))
    alpaca_file.write_text(alpaca_file.read_text().replace("count 7", "count 8"))
    assert loaded(sources=str(alpaca_file)).sets[0].key != first.sets[0].key


def test_ids_are_the_same_for_any_number_of_workers(loaded, alpaca_file, monkeypatch, tmp_path):
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 7)
    one = loaded(sources=str(alpaca_file), cache=tmp_path / "one", workers=1)
    two = loaded(sources=str(alpaca_file), cache=tmp_path / "two", workers=3)
    assert tokens_of(one) == tokens_of(two)
    assert one.report == two.report


def test_an_error_in_a_worker_reaches_the_user(loaded, rows_file, monkeypatch):
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 5)
    path = rows_file([{"instruction": "q", "output": "a" * (900 if n == 17 else 9)} for n in range(30)])
    with pytest.raises(DataError, match=r"rows\.jsonl:18: .* tokens, more than max_length 200"):
        loaded(sources=str(path), workers=2, max_length=200, too_long="error")


def test_every_row_is_accounted_for(loaded, rows_file):
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": []},
        {
            "messages": [
                {"role": "assistant", "content": "hello"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": "more"},
            ]
        },
        {"messages": [{"role": "user", "content": "q"}]},
        {"messages": [{"role": "user", "content": "one two three " * 40}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one two three " * 40}]},
    ]
    data = loaded(sources={"talk": str(rows_file(rows))}, max_length=64)
    report = data.report.sources["talk"]
    assert (report.rows_in, report.rows_out) == (7, 4)
    assert report.rows_in == report.rows_out + report.rows_dropped
    assert {reason: (found.count, found.first[-1]) for reason, found in report.dropped.items()} == {
        "an empty conversation": (1, "2"),
        "no answer to learn from": (1, "5"),
        "nothing trained is left after truncation": (1, "6"),
    }
    assert [found.first[-1] for found in report.changed.values()] == ["3", "4"]
    assert report.truncated_rows == 1
    assert report.tokens == sum(data.sets[0].lengths)
    assert report.trained_tokens == sum(data.sets[0].num_trained)
    assert SourceReport.of(json.loads(json.dumps(data.report.to_dict()))["sources"]["talk"]) == report


@pytest.mark.parametrize("too_long", ["truncate_left", "truncate_right", "drop", "split"])
def test_tokens_in_are_tokens_kept_and_tokens_lost(too_long, loaded, alpaca_file):
    whole = loaded(sources=str(alpaca_file)).report.sources["alpaca"]
    cut = loaded(sources=str(alpaca_file), max_length=60, too_long=too_long).report.sources["alpaca"]
    assert cut.tokens + cut.tokens_lost == whole.tokens
    assert cut.trained_tokens + cut.trained_tokens_lost == whole.trained_tokens
    assert cut.tokens_lost or too_long == "split"
    assert cut.longest <= 60


def test_data_without_a_row_of_use_is_an_error_that_says_why(loaded, rows_file):
    path = rows_file([{"instruction": "q", "output": ""}] * 3)
    with pytest.raises(
        DataError, match=r"no row is left to train on\n.*\n  dropped 3: 'output' is empty \(first .*rows.jsonl:1\)"
    ):
        loaded(sources=str(path))


def test_what_cannot_be_read_is_counted_where_the_recipe_says_so(loaded, rows_file, tmp_path):
    path = rows_file([{"instruction": "q", "output": "a"}] * 3)
    path.write_text(path.read_text() + "{\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl:4: not JSON"):
        loaded(sources=str(path))
    source = {"path": [str(path), str(tmp_path / "*.jsonl.gz")], "on_damage": "skip"}
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(path.read_bytes())[:-1])
    report = loaded(sources=source).report.sources["rows"]
    assert (report.rows_in, report.rows_out) == (9, 6)
    assert {why: found.count for why, found in report.dropped.items()} == {
        "not JSON": 2,
        "the rest of a file that is cut off or damaged": 1,
    }


def test_no_sources_is_an_error(loaded):
    with pytest.raises(DataError, match="data.sources is empty"):
        loaded(sources=[])


def test_a_system_prompt_of_the_source_is_in_each_row(loaded, rows_file, tokenizer):
    path = str(rows_file([{"instruction": "q", "output": "a"}]))
    data = loaded(sources={"one": {"path": path, "system": "Speak A"}, "two": {"path": path, "system": "Speak B"}})
    said = [tokenizer.decode(ids) for ids, _ in tokens_of(data)]
    assert ["Speak A" in said[0], "Speak B" in said[1]] == [True, True]


def test_held_out_rows_are_the_same_for_the_same_seed(loaded, alpaca_file):
    share, count = loaded(sources=str(alpaca_file), held_out=0.2), loaded(sources=str(alpaca_file), held_out=10)
    assert 10 < share.report.held_out["alpaca"] < 40
    assert count.report.held_out == {"alpaca": 10}
    assert len(count.train) == 110
    kept = {segment.row for pack in count.held_out["alpaca"] for segment in pack.segments}
    trained = {segment.row for step in count.loader(epochs=1) for pack in step.packs for segment in pack.segments}
    assert len(kept) == 10
    assert sorted(kept | trained) == list(range(1, 121))
    assert not kept & trained
    again = loaded(sources=str(alpaca_file), held_out=10)
    assert again.train.number.tolist() == count.train.number.tolist()


def test_pieces_of_one_row_are_held_out_together():
    places = np.array([[0, row] for row in range(40) for _ in range(3)])
    for amount in (0.3, 7):
        held = held_out_rows(5, places, amount).reshape(40, 3)
        assert (held.all(1) == held.any(1)).all()
    assert held.any(1).sum() == 7


def test_a_source_may_be_only_for_evaluation(loaded, alpaca_file, rows_file):
    other = rows_file([{"instruction": "q", "output": "a"}] * 4, "other.jsonl")
    data = loaded(sources=str(alpaca_file), held_out_sources=str(other))
    assert len(data.train) == 120
    assert [len(pack.segments) for pack in data.held_out["other"]] == [4]


def test_a_damaged_cache_is_not_trusted(loaded, alpaca_file):
    folder = loaded(sources=str(alpaca_file)).sets[0].folder
    with open(folder / "tokens.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"tokens\.bin: .* bytes instead of .*delete"):
        loaded(sources=str(alpaca_file))


def build_slowly(source: Path, folder: Path) -> None:
    """A process that says when it begins to tokenise, and ends only when it may."""
    whole = Work.__call__

    def slow(work, rows):
        (folder / "working").touch()
        wait_for(folder / "go on")
        return whole(work, rows)

    Work.__call__ = slow
    build_at_once(source, folder)


def build_at_once(source: Path, folder: Path) -> None:
    logging.basicConfig(filename=folder / "log", force=True)
    config = DataConfig(sources=str(source), cache=folder / "cache", workers=1)
    load_data(config, tiny_tokenizer(), (Conversation, Document), seed=0)


def wait_for(path: Path, words: str = "") -> None:
    """Until a file is there and holds some words."""
    end = time.monotonic() + 60
    while not (path.exists() and words in path.read_text()):
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def started(work, *given) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    return process


def test_a_killed_builder_leaves_nothing_that_is_trusted(loaded, alpaca_file, tmp_path):
    killed = started(build_slowly, alpaca_file, tmp_path)
    wait_for(tmp_path / "working")
    killed.kill()
    killed.join()
    left = list((tmp_path / "cache/tokens").glob("*/.rows.tmp-*"))
    assert len(left) == 1
    assert len(loaded(sources=str(alpaca_file)).sets[0]) == 120
    assert not left[0].exists()


def test_of_two_builders_one_waits_and_takes_what_the_other_made(loaded, alpaca_file, tmp_path, monkeypatch):
    first = started(build_slowly, alpaca_file, tmp_path)
    wait_for(tmp_path / "working")
    monkeypatch.setattr(TokenMaker, "build", no_building)
    second = started(build_at_once, alpaca_file, tmp_path)
    wait_for(tmp_path / "log", "waiting for the tokens of alpaca")
    (tmp_path / "go on").touch()
    first.join()
    second.join()
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert len(loaded(sources=str(alpaca_file)).sets[0]) == 120


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(
    ("name", "rows"),
    [("chinese_pt_10k.txt.zst", 9065), ("sharegpt_zh.jsonl.zst", 990), ("oasst_zh_sft.jsonl.zst", 689)],
)
def test_real_files_give_the_rows_they_hold(name, rows, loaded):
    report = loaded(sources={"real": str(SHARED / name)}, max_length=1_000_000).report.sources["real"]
    assert report.rows_out == rows

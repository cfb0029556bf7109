"""Ranks that do not have the same, or do not see one folder, find out before they add anything up."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.distributed import HashStore

from danlu.core.errors import RankLost, SetupError
from danlu.runs import preflight
from danlu.runs.preflight import RollCall, compare, facts, see_folder
from danlu.runs.recipe import load_recipe
from tests.runs.small_run import SmallRun, write_rows


def on_all(count: int, work) -> list:
    """What `work(call)` gives, or raises, on each rank."""
    store = HashStore()

    def one(rank):
        try:
            return work(RollCall(store, rank, count, 10))
        except (SetupError, RankLost) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_alike_ranks_pass():
    mine = {"code": {"danlu/a.py": "1"}, "data": {"rows.jsonl": "20 bytes"}}
    assert on_all(3, lambda call: compare(call, mine)) == [None, None, None]


def test_a_difference_is_named_by_rank_and_file_on_all_ranks():
    def one(call):
        odd = call.rank == 2
        code = {"danlu/engine/loop.py": "bbb" if odd else "aaa", "danlu/a.py": "1"}
        data = {"rows.jsonl": "20 bytes"} if odd else {"rows.jsonl": "20 bytes", "more.jsonl": "3 bytes"}
        compare(call, {"code": code, "data": data, "packages": {"torch": "2.13.0"}})

    found = on_all(3, one)
    assert len({str(error) for error in found}) == 1
    assert isinstance(found[0], SetupError)
    words = str(found[0])
    assert "code danlu/engine/loop.py: rank 2 on" in words
    assert ": bbb; the others: aaa" in words
    assert "data more.jsonl: rank 2 on" in words
    assert "danlu/a.py" not in words
    assert "packages" not in words


def test_facts_see_a_changed_file_of_the_same_size_when_they_are_hashed(tmp_path):
    small = SmallRun(tmp_path)
    write_rows(small.rows)
    run = load_recipe("sft_lora", small.words(tmp_path / "run"))
    quick, whole = facts(run, hashed=False), facts(run, hashed=True)
    small.rows.write_text(small.rows.read_text().replace("one", "two", 1))
    assert facts(run, hashed=False) == quick
    assert facts(run, hashed=True)["data"] != whole["data"]
    assert str(small.rows) in quick["data"]
    assert "danlu/runs/preflight.py" in quick["code"]
    elsewhere = load_recipe("sft_lora", small.words(tmp_path / "other"))
    assert facts(elsewhere, hashed=False)["recipe"] == quick["recipe"]  # a folder may be mounted anywhere
    other = load_recipe("sft_lora", [*small.words(tmp_path / "run"), "engine.seed=1"])
    assert facts(other, hashed=False)["recipe"] != quick["recipe"]


def test_a_rank_that_sees_another_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "FOLDER_SECONDS", 0.2)
    assert on_all(2, lambda call: see_folder(call, tmp_path / "shared")) == [None, None]
    found = on_all(2, lambda call: see_folder(call, tmp_path / f"of-{call.rank}"))
    assert all("rank 1 on" in str(error) and "cannot see what rank 0 on" in str(error) for error in found)
    assert list(tmp_path.rglob(".seen-*")) == []


def test_who_does_not_come_is_named():
    call = RollCall(HashStore(), 0, 3, 0.1)
    with pytest.raises(RankLost, match=r"rank 1, rank 2 of 3 did not come within 0.1 s"):
        call.exchange("who", Path("here").name)

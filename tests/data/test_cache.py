"""Tokens are made once, by one process, from files that are read once; whoever dies at it is not trusted."""

import logging
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from danlu.data import cache, contents
from danlu.data.chunks import Work
from danlu.data.config import DataConfig
from danlu.data.contents import content_of
from danlu.data.pipeline import load_data
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import Conversation


def wait_until(happened) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def rank(source: Path, folder: Path) -> None:
    """One of many processes that start together: notes that it tokenises, and waits where it is told to."""
    logging.basicConfig(filename=folder / f"log-{os.getpid()}", force=True)
    whole = Work.__call__

    def noted(work, rows):
        (folder / f"builds-{os.getpid()}").touch()
        if (folder / "slow").exists():
            wait_until((folder / "go on").exists)
        return whole(work, rows)

    Work.__call__ = noted
    config = DataConfig(sources=str(source), cache=folder / "cache", workers=1)
    data = load_data(config, tiny_tokenizer(), (Conversation,), seed=0)
    (folder / f"rows-{os.getpid()}").write_text(str(len(data.sets[0])))


def started(*given) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=rank, args=given)
    process.start()
    return process


def test_of_many_ranks_one_builds_and_all_read(alpaca_file, tmp_path):
    ranks = [started(alpaca_file, tmp_path) for _ in range(5)]
    for one in ranks:
        one.join()
    assert [one.exitcode for one in ranks] == [0] * 5
    assert len(list(tmp_path.glob("builds-*"))) == 1
    assert [path.read_text() for path in tmp_path.glob("rows-*")] == ["120"] * 5


def test_when_the_builder_is_killed_another_takes_over(alpaca_file, tmp_path):
    (tmp_path / "slow").touch()
    first = started(alpaca_file, tmp_path)
    wait_until((tmp_path / f"builds-{first.pid}").exists)
    others = [started(alpaca_file, tmp_path) for _ in range(2)]
    said = [tmp_path / f"log-{one.pid}" for one in others]
    wait_until(lambda: all(log.exists() and "waiting for the tokens of alpaca" in log.read_text() for log in said))
    assert all(re.search(rf"process {first.pid} on \S+, since ", log.read_text()) for log in said)
    (tmp_path / "slow").unlink()
    os.kill(first.pid, signal.SIGKILL)
    for one in [first, *others]:
        one.join()
    assert [one.exitcode for one in others] == [0, 0]
    assert len(list(tmp_path.glob("builds-*"))) == 2
    assert [path.read_text() for path in tmp_path.glob("rows-*")] == ["120"] * 2
    assert not list((tmp_path / "cache").rglob("*.tmp-*"))


def old(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, (1, 1))
    return path


def test_a_file_that_looks_the_same_is_not_read_again(tmp_path, monkeypatch):
    file = old(tmp_path / "a", "one")
    content = content_of(file, tmp_path / "notes", trust_times=True)
    monkeypatch.setattr(contents, "sha256_of", lambda _: "read")
    assert content_of(file, tmp_path / "notes", trust_times=True) == content
    assert content_of(file, tmp_path / "notes", trust_times=False) == "read"


@pytest.mark.parametrize("change", ["longer", "later", "replaced", "damaged note"])
def test_a_file_that_looks_different_is_read_again(change, tmp_path, monkeypatch):
    file = old(tmp_path / "a", "one")
    content_of(file, tmp_path / "notes", trust_times=True)
    if change == "longer":
        old(file, "one more")
    elif change == "later":
        os.utime(file, (2, 2))
    elif change == "replaced":
        old(tmp_path / "b", "two").replace(file)
    else:
        next((tmp_path / "notes").iterdir()).write_text("{")
    monkeypatch.setattr(contents, "sha256_of", lambda _: "read")
    assert content_of(file, tmp_path / "notes", trust_times=True) == "read"


def test_a_file_written_just_now_is_not_remembered(tmp_path):
    (tmp_path / "a").write_text("one")
    content_of(tmp_path / "a", tmp_path / "notes", trust_times=True)
    assert not (tmp_path / "notes").exists()


def test_what_is_mapped_is_what_was_counted(loaded, alpaca_file):
    [tokens] = loaded(sources=str(alpaca_file)).sets
    rows = [tokens.row(number) for number in range(len(tokens))]
    assert tokens.lengths.tolist() == [len(ids) for ids, _ in rows]
    assert tokens.num_trained.tolist() == [trained.sum() for _, trained in rows]
    assert tokens.offsets.tolist() == [0, *np.cumsum(tokens.lengths)]
    assert [tokens.place(number) for number in range(3)] == [(0, 1), (0, 2), (0, 3)]
    assert all(not getattr(tokens, name).flags.owndata for name in cache.KINDS)

import threading
import time
from pathlib import Path

import pytest

from danlu.core.cache_folder import cache_folder, made_once


def test_cache_folder_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("DANLU_CACHE")
    assert cache_folder() == Path.home() / ".cache/danlu"


def test_two_at_once_make_it_once(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        time.sleep(0.05)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "a/b", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "a/b/file").read_text() == "whole"


def test_a_failure_leaves_nothing_and_the_next_one_tries_again(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_once(tmp_path / "x", fail)
    assert not list(tmp_path.glob("*x*/*"))
    (tmp_path / ".x.tmp-0123").mkdir()
    made_once(tmp_path / "x", lambda folder: (folder / "whole").touch())
    assert (tmp_path / "x/whole").exists()
    assert not (tmp_path / ".x.tmp-0123").exists()

"""Who died, who hangs and who is waited for, from the ranks' files alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from danlu.engine import heartbeats
from danlu.engine.heartbeats import WAITING, Beat, Heart, Watch, beat_path


@pytest.fixture
def sleeper():
    """A process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def write(
    folder: Path, rank: int, *, step: int = 3, doing: str = "the forward of micro-batch 2", **more: object
) -> None:
    now = time.time() + 1
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "written": now} | more
    beat_path(folder, rank).write_text(json.dumps(asdict(Beat(rank=rank, step=step, doing=doing, **facts))))


def test_a_heart_writes_what_its_rank_does(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeats, "EVERY_SECONDS", 0.01)
    with Heart(tmp_path / "ranks", 3) as heart:
        heart.doing("the backward of micro-batch 1", 7)
        end = time.monotonic() + 5
        while (beat := Beat.read(beat_path(tmp_path / "ranks", 3))) is None or beat.step != 7:
            assert time.monotonic() < end
        assert (beat.rank, beat.pid, beat.host) == (3, os.getpid(), socket.gethostname())
        assert str(beat).startswith(f"rank 3 on {beat.host} (process {beat.pid}), after step 7, the backward of micro-")
    assert Beat.read(beat_path(tmp_path / "ranks", 3)).ended
    assert [path.name for path in (tmp_path / "ranks").iterdir()] == ["rank-3.json"]


def test_one_process_alone_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Heart() as heart:
        heart.doing("anything")
    assert list(tmp_path.iterdir()) == []


def test_a_rank_whose_process_is_gone_is_named(tmp_path, sleeper):
    watch = Watch(tmp_path, [0, 1], 600)
    write(tmp_path, 0)
    write(tmp_path, 1, pid=sleeper.pid)
    assert watch.look() is None
    sleeper.kill()
    sleeper.wait()
    found = watch.look()
    assert found.rank == 1
    assert "after step 3, the forward of micro-batch 2" in found.words
    assert "its process is gone" in found.words
    assert watch.gone() == [found.words]


def test_a_rank_that_ended_well_is_not_missed(tmp_path, sleeper):
    sleeper.kill()
    sleeper.wait()
    watch = Watch(tmp_path, [0], 600)
    write(tmp_path, 0, pid=sleeper.pid, ended=True)
    assert watch.look() is None
    write(tmp_path, 0, pid=sleeper.pid, written=time.time() - 60)  # the file of an earlier start
    assert watch.look() is None


def test_a_suspended_rank_is_named(tmp_path, sleeper, monkeypatch):
    monkeypatch.setattr(heartbeats, "STOPPED_SECONDS", 0.1)
    watch = Watch(tmp_path, [0], 600)
    write(tmp_path, 0, pid=sleeper.pid)
    sleeper.send_signal(signal.SIGSTOP)
    end = time.monotonic() + 10
    while (found := watch.look()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "is suspended (SIGSTOP)" in found.words


def test_of_ranks_that_stand_still_the_one_is_named_that_the_others_wait_for(tmp_path):
    watch = Watch(tmp_path, range(3), 0.2)
    for rank in range(3):
        write(tmp_path, rank, doing=WAITING if rank != 1 else "the forward of micro-batch 2")
    assert watch.look() is None
    time.sleep(0.3)
    found = watch.look()
    assert found.rank == 1
    assert "does not get on" in found.words


def test_what_may_take_long_is_no_standstill(tmp_path):
    watch = Watch(tmp_path, [0], 0.1)
    write(tmp_path, 0, doing="loading its model", slow=True)
    watch.look()
    time.sleep(0.2)
    assert watch.look() is None


def test_the_slow_one_is_named_before_anything_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeats, "BEHIND_SECONDS", 0.1)
    watch = Watch(tmp_path, range(2), 600)
    write(tmp_path, 0, doing=WAITING)
    write(tmp_path, 1)
    watch.look()
    assert watch.behind() is None
    time.sleep(0.2)
    assert watch.behind().rank == 1

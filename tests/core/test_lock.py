"""A lock is held by one living process, and by nobody once that is dead."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from danlu.core.errors import SetupError
from danlu.core.lock import Holder, Lock, holder


@contextmanager
def child(work: Callable[[Callable[[], None]], None]) -> Iterator[int]:
    """Fork; `work(ready)` runs in the child, and the block begins once it has called `ready`."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda: os.write(theirs, b"!") and None)
        finally:
            os._exit(0)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def hold(path: Path, seconds: float = 60.0) -> Callable[[Callable[[], None]], None]:
    def work(ready: Callable[[], None]) -> None:
        with Lock(path):
            ready()
            time.sleep(seconds)

    return work


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "run.lock"


def test_a_second_holder_is_told_who_has_it_and_what_to_do(path):
    with child(hold(path)) as pid:
        with pytest.raises(SetupError, match=rf"the run is held by process {pid} on .*`kill {pid}`") as refusal:
            Lock(path, purpose="the run").__enter__()
        assert refusal.value.exit_code == 4
        assert holder(path).pid == pid


def test_one_process_cannot_hold_it_twice(path):
    with Lock(path), pytest.raises(SetupError, match=f"process {os.getpid()}"), Lock(path):
        pass


def test_it_is_gone_afterwards(path):
    with Lock(path):
        assert holder(path) == Holder(**json.loads(path.read_text()))
    assert not path.exists()
    assert holder(path) is None


def test_a_killed_holder_holds_nothing(path):
    with child(hold(path)) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert path.exists()
        assert holder(path) is None
        with Lock(path):
            assert holder(path).pid == os.getpid()


def test_a_worker_that_outlives_its_killed_parent_holds_nothing(path):
    def work(ready: Callable[[], None]) -> None:
        with Lock(path):
            worker = os.fork()
            if worker == 0:
                (path.parent / "worker").write_text(str(os.getpid()))
                ready()
                time.sleep(60)
                os._exit(0)
            os.waitpid(worker, 0)

    with child(work) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        try:
            with Lock(path):
                pass
        finally:
            os.kill(int((path.parent / "worker").read_text()), signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_does_not_free_it(path):
    with Lock(path) as lock:
        pid = os.fork()
        if pid == 0:
            try:
                lock.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(SetupError):
            Lock(path).__enter__()


def test_a_pid_that_was_given_to_another_process_is_not_the_holder(path):
    path.parent.mkdir()
    me = Holder.me()
    path.write_text(json.dumps({"pid": me.pid, "started": "1", "host": me.host, "since": me.since}))
    assert holder(path) is None
    path.write_text(json.dumps({"pid": me.pid, "started": me.started, "host": me.host, "since": me.since}))
    assert holder(path) == me
    path.write_text(json.dumps({"pid": 1, "started": "1", "host": "elsewhere", "since": me.since}))
    assert holder(path).host == "elsewhere"


@pytest.mark.parametrize("text", ["", '{"pid": 1', "[]", '{"pid": 1}', "\x00" * 20])
def test_a_torn_lock_file_is_taken_over(path, text):
    path.parent.mkdir()
    path.write_text(text)
    assert holder(path) is None
    with Lock(path):
        assert holder(path).pid == os.getpid()


def test_waiting_says_for_what_and_gets_its_turn(path, caplog):
    with child(hold(path, seconds=0.3)) as pid, Lock(path, wait=True, purpose="the token cache"):
        assert holder(path).pid == os.getpid()
    assert f"waiting for the token cache, which process {pid}" in caplog.text


def test_many_processes_in_turn_lose_nothing(path):
    """Each adds one to a number, over and over; a race at the removal of the file would lose some."""
    counter = path.parent / "counter"
    path.parent.mkdir()
    counter.write_text("0")
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                with Lock(path, wait=True):
                    counter.write_text(str(int(counter.read_text()) + 1))
            os._exit(0)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 4
    assert counter.read_text() == "200"

"""A lock on a file, held by one living process: two runs never write one folder, two builders never build one cache."""

import fcntl
import json
import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from weakref import WeakSet

import psutil

from danlu.core.errors import SetupError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. `started` tells it from a later process with the same pid."""

    pid: int
    started: str
    host: str
    since: float
    """seconds since 1970"""

    @classmethod
    def me(cls) -> "Holder":
        """This process."""
        return cls(os.getpid(), started(os.getpid()) or "", socket.gethostname(), time.time())

    @property
    def alive(self) -> bool:
        """Whether it still runs; a process on another host is believed to."""
        return self.host != socket.gethostname() or started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {time.strftime('%F %T', time.localtime(self.since))}"


def started(pid: int) -> str | None:
    """When a process started, counted so that no change of the clock moves it; None when no such process runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        pass
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def holder(path: Path) -> Holder | None:
    """The living process that holds the lock at `path`, read without touching the lock."""
    try:
        found = Holder(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if found.alive else None


class Lock:
    """`with Lock(path): ...` holds the file; a second holder gets a `SetupError`, or with `wait=True` its turn.

    The kernel keeps the lock (flock) and frees it when the process ends, however it ends, so a lock is never stale;
    the file's text is for people and for `holder`.
    """

    def __init__(self, path: Path, *, wait: bool = False, purpose: str = "") -> None:
        self.path, self.wait, self.purpose = path, wait, purpose or str(path)
        self._file: int | None = None

    def __enter__(self) -> "Lock":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._try():
            if not self.wait:
                raise SetupError(self._refusal())
            self._await_turn()
        _held.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:  # None in a child that forked inside the block: the lock is its parent's
            self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close our handle without freeing the lock that a parent process holds through its own."""
        _held.discard(self)
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _try(self) -> bool:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:
            os.close(file)
            raise SetupError(f"{self.path}: this disk keeps no locks ({error}); use a folder on another") from error
        if not _is_at(file, self.path):  # the last holder removed it after we had opened it
            os.close(file)
            return self._try()
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(Holder.me())).encode(), 0)
        self._file = file
        return True

    def _await_turn(self) -> None:
        log.warning("waiting for %s, which %s is working on", self.purpose, holder(self.path) or "another process")
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    def _refusal(self) -> str:
        other = holder(self.path)
        if other is None:
            return f"{self.purpose} is held by another process that has only just started; wait for it to end"
        here = other.host == socket.gethostname()
        stop = f"`kill {other.pid}` asks it to save and stop" if here else f"stop it on {other.host}"
        return f"{self.purpose} is held by {other}; wait for it to end, or {stop}"


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one that its path names."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


_held: WeakSet[Lock] = WeakSet()


def _forget_in_child() -> None:
    # a data worker that outlives a killed parent would otherwise hold the run for ever
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)

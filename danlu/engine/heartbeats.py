"""What every rank is doing, in a small file each, and who of them died, hangs or is waited for."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

import psutil

from danlu.core.launcher import BY_DANLU

EVERY_SECONDS = 1.0
"""at most so often a rank writes its file"""
STOPPED_SECONDS = 10.0
"""so long a rank of this machine may be suspended before it is taken for lost"""
BEGIN_SECONDS = 600.0
"""so long a rank may take to import everything, at the least"""
BEHIND_SECONDS = 60.0
"""so long the others may wait for one rank before it is named"""
WAITING = "waiting for the other ranks"
UPDATING = "the update"
SAVING = "saving"
SAVING_ALONE = "saving without the others"
LAST_WORDS_SECONDS = 120.0
"""so long a rank whose launcher died may take to save what it has"""


@dataclass(frozen=True)
class Beat:
    """One rank's file."""

    rank: int
    host: str
    pid: int
    step: int
    """the last finished optimiser step"""
    doing: str
    since: float
    """when it began that, in seconds since 1970"""
    written: float
    """when the file was written"""
    slow: bool = False
    """whether that may take as long as it wants, as loading a model does"""
    ended: bool = False

    @classmethod
    def read(cls, path: Path) -> "Beat | None":
        """What a file says; None where there is none (yet) that can be read."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def progress(self) -> tuple[int, str, float]:
        """What changes while a rank gets on."""
        return self.step, self.doing, self.since

    def __str__(self) -> str:
        since = max(0.0, time.time() - self.since)
        who = f"rank {self.rank} on {self.host} (process {self.pid})"
        return f"{who}, after step {self.step}, {self.doing} for {since:.0f} s"


class Heart:
    """`heart.doing("the forward of micro-batch 2")` costs a few microseconds; a thread writes it down.

    Without a folder (one process alone) nothing is written.
    """

    def __init__(self, folder: Path | None = None, rank: int = 0) -> None:
        self._path = None if folder is None else beat_path(folder, rank)
        self._now = Beat(rank, socket.gethostname(), os.getpid(), 0, "starting", time.time(), time.time(), slow=True)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeats", daemon=True)

    def doing(self, what: str, step: int | None = None, *, slow: bool = False) -> None:
        """Say what this rank begins to do, after which finished step, and whether it may take long."""
        if self._path is not None:
            step = self._now.step if step is None else step
            self._now = replace(self._now, step=step, doing=what, since=time.time(), slow=slow)

    @property
    def what(self) -> str:
        """What was said last."""
        return self._now.doing

    def __enter__(self) -> "Heart":
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._write(self._path)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._path is not None:
            self._thread.join()
            self._write(self._path, ended=True)

    def _beat(self) -> None:
        assert self._path is not None
        launcher = os.getppid() if BY_DANLU in os.environ else None
        while not self._end.wait(EVERY_SECONDS):
            self._write(self._path)
            if launcher is not None and os.getppid() != launcher:
                self._follow_the_launcher()

    def _write(self, path: Path, ended: bool = False) -> None:
        # not forced to the disk: nobody reads it after a power cut
        beat = replace(self._now, written=time.time(), ended=ended)
        aside = path.with_name(f".{path.name}.tmp-{beat.pid}")
        try:
            aside.write_text(json.dumps(asdict(beat)))
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)  # a full disk must not end the run; a silent rank is looked at more closely

    def _follow_the_launcher(self) -> None:
        """Nobody is left to stop this process: save and end, and if that does not work, end."""
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._end.wait(LAST_WORDS_SECONDS):
            os._exit(128 + signal.SIGTERM)


@dataclass(frozen=True)
class Trouble:
    """A rank that will not come back."""

    rank: int
    words: str
    beat: Beat | None = None


class Watch:
    """Looks at the files of some ranks; what counts is when a file was seen to change, so clocks may differ."""

    def __init__(self, folder: Path, ranks: Iterable[int], hang_seconds: float) -> None:
        self.folder, self.ranks, self.hang_seconds = folder, tuple(ranks), hang_seconds
        now = time.monotonic()
        self._seen: dict[int, tuple[Beat | None, float]] = dict.fromkeys(self.ranks, (None, now))
        self._stopped: dict[int, float] = {}
        self._began = time.time()
        self._host = socket.gethostname()

    def look(self) -> Trouble | None:
        """The rank that holds the others up for good, if one does."""
        now = time.monotonic()
        for rank in self.ranks:
            beat, (before, _) = self.beat(rank), self._seen[rank]
            if beat is not None and (before is None or beat.progress != before.progress):
                self._seen[rank] = beat, now
            trouble = self._suspended(beat, now)
            if trouble is not None:
                return trouble
        stuck = [rank for rank, (beat, since) in self._seen.items() if self._is_stuck(beat, now - since)]
        if not stuck:
            return None
        # all ranks stand still when one does: it is the one that got least far, and stands there longest
        first = min(stuck, key=lambda rank: self._how_far(rank, now))
        beat = self._seen[first][0]
        seconds = now - self._seen[first][1]
        words = f"{beat}: it does not get on" if beat else f"rank {first} has not begun after {seconds:.0f} s"
        return Trouble(first, words, beat)

    def gone(self) -> list[str]:
        """The ranks of this machine whose process is no more."""
        beats = [beat for rank in self.ranks if (beat := self.beat(rank)) and beat.host == self._host]
        return [f"{beat}: its process is gone" for beat in beats if not beat.ended and state_of(beat.pid) == "dead"]

    def are_doing(self, what: str) -> bool:
        """Whether a living rank of this machine does just that."""
        beats = [beat for rank in self.ranks if (beat := self.beat(rank)) and beat.host == self._host]
        return any(beat.doing == what and not beat.ended and state_of(beat.pid) == "alive" for beat in beats)

    def behind(self) -> Beat | None:
        """The one rank that all the others have waited for longer than they should."""
        found = [beat for beat, _ in self._seen.values() if beat is not None and not beat.ended]
        busy = [beat for beat in found if not beat.doing.startswith(WAITING)]
        if len(found) < 2 or len(busy) != 1:
            return None
        waited = min(time.monotonic() - since for beat, since in self._seen.values() if beat is not busy[0])
        return busy[0] if waited > BEHIND_SECONDS else None

    def beat(self, rank: int) -> Beat | None:
        """The newest file of a rank."""
        return Beat.read(beat_path(self.folder, rank))

    def _is_stuck(self, beat: Beat | None, seconds: float) -> bool:
        if beat is None:
            return seconds > max(BEGIN_SECONDS, self.hang_seconds)
        return seconds > self.hang_seconds and not (beat.ended or beat.slow)

    def _how_far(self, rank: int, now: float) -> tuple[bool, int, bool, float]:
        beat, since = self._seen[rank]
        if beat is None:
            return False, 0, False, since
        return True, beat.step, beat.doing.startswith(WAITING), since

    def _suspended(self, beat: Beat | None, now: float) -> Trouble | None:
        """A rank of this machine that does not run: gone, or stopped for some time."""
        if beat is None or beat.ended or beat.host != self._host or beat.written < self._began:
            return None  # the last may be the file of an earlier start
        state = state_of(beat.pid)
        if state == "dead":
            return Trouble(beat.rank, f"{beat}: its process is gone", beat)
        if state != "stopped":
            self._stopped.pop(beat.rank, None)
            return None
        since = self._stopped.setdefault(beat.rank, now)
        if now - since < min(STOPPED_SECONDS, self.hang_seconds):
            return None
        return Trouble(beat.rank, f"{beat}: its process is suspended (SIGSTOP)", beat)


def state_of(pid: int) -> str:
    """`dead`, `stopped` or `alive`"""
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "dead"
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return "dead"
    return "stopped" if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) else "alive"


def beat_path(folder: Path, rank: int) -> Path:
    """Where a rank writes what it does."""
    return folder / f"rank-{rank}.json"

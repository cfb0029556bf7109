"""Watches the other ranks from inside one of them, where no launcher of danlu's does."""

import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from danlu.core.errors import RankLost
from danlu.core.launcher import BY_DANLU
from danlu.engine.heartbeats import Watch

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
END_SECONDS = 30.0
"""so long a rank may take to end by itself once another is lost"""


class Guard:
    """`with Guard(watch):` ends the rank that hangs, if it is on this machine, and then this one, if it hangs too."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch
        self._end = threading.Event()
        self._told: set[int] = set()

    @classmethod
    def of(cls, folder: Path, rank: int, count: int, hang_seconds: float) -> "Guard":
        """Rank 0 watches all, and rank 1 watches rank 0."""
        watched = range(1, count) if rank == 0 else [0]
        if count == 1 or rank > 1 or BY_DANLU in os.environ:
            return cls(None)
        return cls(Watch(folder, watched, hang_seconds))

    def __enter__(self) -> "Guard":
        if self.watch is not None:
            threading.Thread(target=self._guard, args=(self.watch,), name="guard", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def _guard(self, watch: Watch) -> None:
        while not self._end.wait(LOOK_SECONDS):
            trouble = watch.look()
            behind = watch.behind()
            if behind is not None and behind.step not in self._told:
                self._told.add(behind.step)
                log.warning("the others wait for %s", behind)
            if trouble is None:
                continue
            log.error("%s; the run ends", trouble.words)
            if trouble.beat is not None and trouble.beat.host == socket.gethostname():
                with suppress(ProcessLookupError):
                    os.kill(trouble.beat.pid, signal.SIGKILL)  # it would not hear another
            if not self._end.wait(END_SECONDS):
                os._exit(RankLost.exit_code)
            return

"""Signals become wishes that the loop reads between micro-steps: stop, or save now."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from danlu.core.errors import Interrupted, Preempted


class Stop:
    """`with Stop() as stop:` turns SIGTERM and SIGINT into `stop.requested`, SIGUSR1 into `stop.take_save_request()`.

    A second SIGTERM or SIGINT ends the process at once. A launcher such as torchrun hands one Ctrl-C to its children
    twice; `echo_seconds` is how long after the first a further signal counts as that echo.
    """

    def __init__(self, *, echo_seconds: float = 0.0, quiet: bool = False) -> None:
        self.echo_seconds, self.quiet = echo_seconds, quiet
        self.signal: signal.Signals | None = None
        self._save = False
        self._told = False
        self._at = 0.0
        self._pid = os.getpid()
        self._nothing_to_save: str | None = None
        self._before: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> "Stop":
        # Python lets only the main thread answer signals; elsewhere `request` is the way to stop
        if threading.current_thread() is threading.main_thread():
            wishes = {signal.SIGTERM: self._on_stop, signal.SIGINT: self._on_stop, signal.SIGUSR1: self._on_save}
            self._before = {number: signal.signal(number, answer) for number, answer in wishes.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, answer in self._before.items():
            signal.signal(number, answer)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        """Whether someone asked the run to save and stop."""
        return self.signal is not None

    def request(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask as a signal would; for threads and tests."""
        self.signal, self._at = number, time.monotonic()

    def hear(self, number: signal.Signals) -> None:
        """Others were asked; this process's own first signal is still to come, and is no second one."""
        if not self.requested:
            self.request(number)
            self._told = True

    def take_save_request(self) -> bool:
        """Whether a save was asked for since the last call."""
        wanted, self._save = self._save, False
        return wanted

    def reason(self, message: str) -> Preempted:
        """What to raise once everything is saved; its exit code tells a supervisor to resume."""
        return Interrupted(message) if self.signal == signal.SIGINT else Preempted(message)

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Inside, nothing is worth saving yet: the first signal ends the block where it is, with this message."""
        self._nothing_to_save = message
        try:
            yield
            if self.requested:  # by another thread, or the error was swallowed by someone who caught too much
                raise self.reason(message)
        finally:
            self._nothing_to_save = None

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a worker that was forked inside the block: its parent decides
        if not self.requested:
            self.request(signal.Signals(number))
            words = b"saving, then stopping" if self._nothing_to_save is None else b"stopping"
            if not self.quiet:
                os.write(2, b"\n" + words + b"; again stops at once\n")
            if not self.echo_seconds:
                # the kernel needs no Python to obey, so even a long matrix product cannot delay the second signal
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self._nothing_to_save is not None:
                raise self.reason(self._nothing_to_save)
        elif self._told:
            self._told, self._at = False, time.monotonic()
        elif time.monotonic() - self._at > self.echo_seconds:
            os._exit(128 + number)

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self._save = True

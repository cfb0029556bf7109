"""What a hook may hear, and how the loop tells it without ever failing because of it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from danlu.core.errors import UserError
from danlu.core.parts import Folder, Part
from danlu.engine.records import EvalRecord, RunFacts, StepRecord, Summary

log = logging.getLogger(__name__)


class Listener:
    """Hears one run. Each method may be left out; all times and totals are in the records."""

    def on_step(self, record: StepRecord) -> None:
        """An optimiser step was made or skipped."""

    def on_eval(self, record: EvalRecord) -> None:
        """The model was measured on held-out data."""

    def on_save(self, step: int, path: Path) -> None:
        """A checkpoint was written."""

    def on_alert(self, step: int, message: str) -> None:
        """Something needs a person's eye: a skipped step, a checkpoint that was not saved."""

    def on_rollback(self, step: int) -> None:
        """The run went back to the checkpoint of this step; later ones are made again, from other data."""

    def on_stop(self, step: int, reason: str) -> None:
        """The run was asked to stop before its end; everything is saved."""

    def on_end(self, summary: Summary) -> None:
        """The run came to its end."""

    def close(self) -> None:
        """The run is over, however it ended."""


class Hook(Part):
    """Settings of something that listens to a run."""

    def start(self, run: RunFacts) -> Listener:
        """A listener for one run."""
        raise NotImplementedError


class Listeners(Listener):
    """`with Listeners(hooks, run) as listeners: listeners.on_step(record)` tells them all, in order.

    A listener that fails is named in one warning and told again next time: a disk that was full may have room by then.
    """

    def __init__(self, hooks: Sequence[Hook], run: RunFacts) -> None:
        self._warned: set[str] = set()
        self._listeners: list[tuple[str, Listener]] = []
        for hook in hooks:
            self._guarded(type(hook).__name__, lambda hook=hook: self._add(hook, run))

    def __enter__(self) -> "Listeners":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on_step(self, record: StepRecord) -> None:
        self._tell(lambda listener: listener.on_step(record))

    def on_eval(self, record: EvalRecord) -> None:
        self._tell(lambda listener: listener.on_eval(record))

    def on_save(self, step: int, path: Path) -> None:
        self._tell(lambda listener: listener.on_save(step, path))

    def on_alert(self, step: int, message: str) -> None:
        self._tell(lambda listener: listener.on_alert(step, message))

    def on_rollback(self, step: int) -> None:
        self._tell(lambda listener: listener.on_rollback(step))

    def on_stop(self, step: int, reason: str) -> None:
        self._tell(lambda listener: listener.on_stop(step, reason))

    def on_end(self, summary: Summary) -> None:
        self._tell(lambda listener: listener.on_end(summary))

    def close(self) -> None:
        self._tell(lambda listener: listener.close())

    def _add(self, hook: Hook, run: RunFacts) -> None:
        self._listeners.append((type(hook).__name__, hook.start(run)))

    def _tell(self, event: Callable[[Listener], None]) -> None:
        for name, listener in self._listeners:
            self._guarded(name, lambda listener=listener: event(listener))

    def _guarded(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except UserError:
            raise
        except Exception as error:
            if name not in self._warned:
                self._warned.add(name)
                log.warning(
                    "the hook %s failed, and training goes on without it: %s: %s", name, type(error).__name__, error
                )


hooks = Folder("danlu.engine.hooks", Hook)

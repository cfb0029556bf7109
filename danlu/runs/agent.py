"""Torch's agent of one machine's ranks: it names the rank that ended a run, and starts again what may then go well."""

import json
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from types import FrameType, TracebackType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from danlu.core.errors import (
    CheckpointError,
    DataError,
    Diverged,
    Interrupted,
    Preempted,
    RankLost,
    SetupError,
    UserError,
)
from danlu.core.launcher import ECHO_SECONDS
from danlu.engine.heartbeats import SAVING_ALONE, Watch, beat_path
from danlu.runs.meeting import (
    ALONE,
    KILLED,
    MENDABLE,
    RAISED,
    SILENT,
    SILENT_SECONDS,
    Meeting,
    Neighbours,
    Verdict,
)

log = logging.getLogger(__name__)

IN_VAIN = {error.exit_code for error in (UserError, DataError, SetupError, Diverged, CheckpointError)}
"""exit codes after which the same start would end the same"""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
STOPPED = {Preempted.exit_code, Interrupted.exit_code}
BY_THEMSELVES_SECONDS = 5.0
"""so long the others may take to end after one failed, before they are told to"""
END_SECONDS = 20.0
"""so long they may take then"""
SAVE_SECONDS = 600.0
"""so long ranks that were asked to stop may take to save"""


class Signals:
    """`with Signals() as signals:` the first stop signal is handed on once, one that comes later ends everything."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.again = False
        self._at = 0.0
        self._before = {number: signal.getsignal(number) for number in STOPS}

    def __enter__(self) -> "Signals":
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, answer in self._before.items():
            signal.signal(number, answer)

    def listen(self) -> None:
        """Answer them from now on; torch's agent sets its own answers whenever it starts processes."""
        for number in STOPS:
            signal.signal(number, self._on)

    def check(self) -> None:
        """Raise where nothing has begun that could be saved."""
        if self.asked is not None:
            raise (Interrupted if self.asked == signal.SIGINT else Preempted)("stopped before all ranks were there")

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked, self._at = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._at > ECHO_SECONDS:
            self.again = True


class Agent(LocalElasticAgent):
    """The ranks of this machine. `verdict` says afterwards why they ended, `None` that all is well."""

    def __init__(
        self,
        spec: WorkerSpec,
        logs: Path,
        *,
        signals: Signals,
        beats: Path | None,
        hang_seconds: float,
    ) -> None:
        super().__init__(spec, DefaultLogsSpecs(log_dir=str(logs)), exit_barrier_timeout=60)
        assert isinstance(spec.rdzv_handler, Meeting)
        self.meeting, self.signals = spec.rdzv_handler, signals
        self.beats, self.hang_seconds = beats, hang_seconds
        self.verdict: Verdict | None = None
        self._neighbours: Neighbours | None = None
        self._watch: Watch | None = None
        self._told_behind: set[int] = set()
        self._looked = 0.0

    # these three torch declares with a decorator that pyright cannot look through
    def _rendezvous(self, worker_group: WorkerGroup) -> None:  # type: ignore[override]
        if self.verdict is not None:
            self.meeting.generation += 1
        super()._rendezvous(worker_group)  # type: ignore[call-arg]
        # a machine that came back later counts the starts that it missed
        self._remaining_restarts = worker_group.spec.max_restarts - self.meeting.generation
        self.verdict = None

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:  # type: ignore[override]
        ranks = [worker.global_rank for worker in worker_group.workers]
        if self.beats is not None:
            for rank in ranks:
                beat_path(self.beats, rank).unlink(missing_ok=True)
            self._watch = Watch(self.beats, ranks, self.hang_seconds)
        if self.meeting.place.nodes > 1:
            self._neighbours = Neighbours(self.meeting, self.beats)
            self._neighbours.start()
        found = super()._start_workers(worker_group)  # type: ignore[call-arg]
        self.signals.listen()
        return found

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:  # type: ignore[override]
        if self.signals.asked is not None:
            self.verdict = self._stopped(worker_group, self.signals.asked)
            self._remaining_restarts = 0
            return RunResult(WorkerState.FAILED)
        codes = self._codes(worker_group)
        if all(code == 0 for code in codes.values()) and (self._neighbours is None or self._neighbours.all_done()):
            return super()._monitor_workers(worker_group)  # type: ignore[call-arg]
        found = self._failed(worker_group) if any(codes.values()) else self._lost()
        if found is None:
            return RunResult(WorkerState.HEALTHY)
        self.verdict = self._agreed(found)
        self._end_all(worker_group)
        if self.verdict.code in IN_VAIN | STOPPED:
            self._remaining_restarts = 0
        elif self._remaining_restarts > 0:
            number = worker_group.spec.max_restarts - self._remaining_restarts + 1
            log.error("%s", self.verdict.words)
            log.info("starting again (%d of %d)", number, worker_group.spec.max_restarts)
        return RunResult(WorkerState.FAILED)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, *given: Any, **named: Any) -> None:
        if self._neighbours is not None:
            self._neighbours.close()
        if self._pcontext is not None:
            self._pcontext.close(death_sig, int(END_SECONDS))

    # what happened

    def _processes(self, worker_group: WorkerGroup) -> dict[int, Popen[Any]]:
        """The process of each rank."""
        handlers = self._pcontext.subprocess_handlers  # type: ignore[union-attr]
        return {worker.global_rank: handlers[worker.local_rank].proc for worker in worker_group.workers}

    def _codes(self, worker_group: WorkerGroup) -> dict[int, int | None]:
        return {rank: process.poll() for rank, process in self._processes(worker_group).items()}

    def _lost(self) -> Verdict | None:
        """What is wrong although every process runs; looked for once a second."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return None
        self._looked = now
        if self._neighbours is not None:
            told = self._neighbours.told()
            if told:
                return max(told, key=surest)
        if self._watch is None:
            return None
        behind = self._watch.behind()
        if behind is not None and behind.step not in self._told_behind:
            self._told_behind.add(behind.step)
            log.warning("the others wait for %s", behind)
        trouble = self._watch.look()
        if trouble is None:
            return None
        if trouble.beat is not None:
            send(trouble.beat.pid, signal.SIGKILL)  # it would not hear another
        return Verdict(RankLost.exit_code, trouble.words, KILLED, time.time())

    def _failed(self, worker_group: WorkerGroup) -> Verdict:
        """Which of the ranks that ended here is the cause."""
        asked = any(code in STOPPED for code in self._codes(worker_group).values())
        self._wait(worker_group, SAVE_SECONDS if asked else BY_THEMSELVES_SECONDS)
        codes = self._codes(worker_group)
        found = [self._verdict_on(worker_group, rank, code) for rank, code in codes.items() if code]
        return max(found, key=surest)

    def _verdict_on(self, worker_group: WorkerGroup, rank: int, code: int) -> Verdict:
        local = next(worker.local_rank for worker in worker_group.workers if worker.global_rank == rank)
        note = read_note(Path(self._pcontext.error_files[local]))  # type: ignore[union-attr]
        beat = self._watch.beat(rank) if self._watch else None
        who = str(beat) if beat else f"rank {rank} on {socket.gethostname()}"
        if note is not None:
            weight = ALONE if note["lost_others"] else MENDABLE if note["for_people"] else RAISED
            words = note["words"] if note["for_people"] else f"{who}:\n{note['words']}"
            return Verdict(code, words, weight, note["at"])
        if code < 0:
            return Verdict(128 - code, f"{who}: killed by {signal.Signals(-code).name}", KILLED, time.time())
        return Verdict(code, f"{who}: ended with exit code {code}", SILENT, time.time())

    def _agreed(self, mine: Verdict) -> Verdict:
        """The surest verdict of all machines."""
        neighbours = self._neighbours
        if neighbours is None:
            return mine
        neighbours.tell(mine)
        # a rank that only lost its neighbours knows nothing: another machine has died, or will say what happened there
        end = time.monotonic() + (SILENT_SECONDS + 5 if mine.weight == ALONE else 2)
        found = mine
        while time.monotonic() < end and not self.signals.again:
            found = max([mine, *neighbours.told()], key=surest)
            if mine.weight == ALONE < found.weight:
                break
            time.sleep(0.2)
        return found

    # ends

    def _stopped(self, worker_group: WorkerGroup, number: signal.Signals) -> Verdict:
        """Hand a stop signal to every rank once, and let them save."""
        self._send(worker_group, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        self._wait(worker_group, SAVE_SECONDS)
        self._end_all(worker_group)
        code = Interrupted.exit_code if number == signal.SIGINT else Preempted.exit_code
        found = [self._verdict_on(worker_group, rank, code) for rank, code in self._codes(worker_group).items() if code]
        saved = [each for each in found if each.code in STOPPED and each.weight == MENDABLE]
        # a rank that was not yet listening ended by the signal, without a word, and has nothing to save either
        worse = [each for each in found if each not in saved and each.weight != SILENT and each.code != 128 + number]
        return max(worse or saved or [Verdict(code, "stopped; nothing had begun")], key=lambda each: each.weight)

    def _end_all(self, worker_group: WorkerGroup) -> None:
        """End what still runs."""
        self._send(worker_group, signal.SIGTERM)
        self._wait(worker_group, END_SECONDS)
        if self._watch is not None and self._watch.are_doing(SAVING_ALONE):
            self._wait(worker_group, SAVE_SECONDS)
        self._send(worker_group, signal.SIGKILL)
        self._wait(worker_group, END_SECONDS)

    def _send(self, worker_group: WorkerGroup, number: signal.Signals) -> None:
        for process in self._processes(worker_group).values():
            if process.poll() is None:
                send(process.pid, number)

    def _wait(self, worker_group: WorkerGroup, seconds: float) -> None:
        """Until all have ended, at most so long; no longer once somebody insists."""
        end = time.monotonic() + seconds
        while None in self._codes(worker_group).values() and time.monotonic() < end and not self.signals.again:
            time.sleep(0.05)


def surest(verdict: Verdict) -> tuple[int, float]:
    """Of several verdicts, the one to believe: the surest, and of those the first."""
    return verdict.weight, -verdict.at


def send(pid: int, number: signal.Signals) -> None:
    """Signal a rank; what kills it kills its data workers too, which are in its process group."""
    with suppress(ProcessLookupError):
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def read_note(path: Path) -> dict[str, Any] | None:
    """What a failing rank left for its launcher."""
    try:
        return json.loads(path.read_bytes())["danlu"]
    except (OSError, ValueError, KeyError):
        return None

"""Where the launchers of several machines meet: who is there, who is missing, and what each has to tell the others."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from danlu.core.errors import RankLost, SetupError, UserError
from danlu.engine.heartbeats import Beat, beat_path

log = logging.getLogger(__name__)

SILENT_SECONDS = 20.0
"""a machine that gives no sign of life for so long is lost"""
REMIND_SECONDS = 30.0
"""how often those who wait are told who is missing"""
ANSWER = timedelta(seconds=15)
"""the longest that the first machine may take to answer"""


@dataclass(frozen=True)
class Place:
    """This machine among all of a run."""

    host: str
    port: int
    node: int = 0
    nodes: int = 1
    gpus: int = 1
    """processes on each"""
    wait_seconds: float = 900.0
    """for the other machines"""


ALONE, SILENT, RAISED, MENDABLE, KILLED = range(5)
"""how sure a rank's end is the cause of the others': it lost its neighbours, said nothing, raised an error, raised one
that a person can mend, or was killed"""


@dataclass(frozen=True)
class Verdict:
    """Why a run ended: which rank, and how."""

    code: int
    words: str = ""
    weight: int = SILENT
    at: float = 0.0
    """when, in seconds since 1970"""


class Meeting(RendezvousHandler):
    """Torch's agents meet here; node 0 keeps the store. `generation` counts the starts of the run."""

    def __init__(self, place: Place, interrupted: Callable[[], None]) -> None:
        self.place, self._interrupted = place, interrupted
        self.generation, self._met = 0, False
        self.store = self._open()

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for all machines; the ranks get a store of their own, so that no start sees what an earlier one left."""
        place = self.place
        if place.node == 0:
            self.store.set("generation", str(self.generation))
        else:
            self._until(lambda: self._has("generation"), [0])
            self.generation = max(self.generation, self._newest())
            if not self._met and self._has(self._key("port")):
                log.info("the run has begun without this machine; waiting for its next start")
                self._until(lambda: self._newest() > self.generation, [0])
                self.generation = self._newest()
        self._met = True
        self._come()
        self._until(lambda: not self.missing(), None)
        if place.node == 0:
            self.set("port", str(free_port(self.store.port + 1)))
        self._until(lambda: self._has(self._key("port")), [0])
        ranks_meet = RendezvousStoreInfo(place.host, int(self.get("port")))
        return RendezvousInfo(PrefixStore(f"agents/{self.generation}", self.store), place.node, place.nodes, ranks_meet)

    def missing(self) -> list[int]:
        """The nodes that have not come to this start."""
        return [node for node in range(self.place.nodes) if not self._has(self._key(f"node/{node}"))]

    def hosts(self) -> list[str]:
        """The host of each node."""
        return [json.loads(self.get(f"node/{node}"))["host"] for node in range(self.place.nodes)]

    def set(self, name: str, value: str) -> None:
        """Tell the others something about this start."""
        self.store.set(self._key(name), value)

    def get(self, name: str) -> str:
        """What was told; it must be there."""
        return self.store.get(self._key(name)).decode()

    def chosen(self, value: str) -> str:
        """What the first machine chose at its first start, for all."""
        if self.place.node == 0:
            self.store.set("chosen", value)
        self._until(lambda: self._has("chosen"), [0])
        return self.store.get("chosen").decode()

    def _come(self) -> None:
        place = self.place
        said = {"host": socket.gethostname(), "pid": os.getpid(), "nodes": place.nodes, "gpus": place.gpus}
        if self.store.add(self._key(f"places/{place.node}"), 1) > 1:
            other = json.loads(self.get(f"node/{place.node}"))
            raise UserError(f"--node-rank {place.node} is taken by {other['host']} (process {other['pid']})")
        self.set(f"node/{place.node}", json.dumps(said))
        if place.node:
            self._until(lambda: self._has(self._key("node/0")), [0])
            first = json.loads(self.get("node/0"))
            for key, words in (("nodes", "--nodes"), ("gpus", "--gpus")):
                if first[key] != said[key]:
                    raise UserError(
                        f"{words} is {said[key]} here and {first[key]} on {first['host']}; say the same on all"
                    )

    def _open(self) -> TCPStore:
        place = self.place
        if place.node == 0:
            try:
                return TCPStore(place.host, place.port, None, True, ANSWER, wait_for_workers=False)
            except RuntimeError as error:
                raise SetupError(
                    f"cannot listen on port {place.port} ({last_line(error)}); another run may: "
                    "give --master HOST:PORT with another port"
                ) from error
        self._until(lambda: answers(place.host, place.port), [0])
        return TCPStore(place.host, place.port, None, False, ANSWER, wait_for_workers=False)

    def _until(self, there: Callable[[], bool], nodes: list[int] | None) -> None:
        """Wait for some nodes, or for whoever is missing; a `RankLost` names those who did not come."""
        end, remind = time.monotonic() + self.place.wait_seconds, time.monotonic() + REMIND_SECONDS
        place = self.place
        while not there():
            self._interrupted()
            now = time.monotonic()
            if now > min(end, remind):
                gone = ", ".join(f"node {node}" for node in (self.missing() if nodes is None else nodes))
                where = f"at {place.host}:{place.port}"
                if now > end:
                    raise RankLost(
                        f"{gone} of {place.nodes} did not come {where} within {place.wait_seconds:g} s; start the same "
                        "command there with its own --node-rank, and see that the port can be reached"
                    )
                log.info("%s of %d not yet %s", gone, place.nodes, where)
                remind = now + REMIND_SECONDS
            time.sleep(0.1)

    def _newest(self) -> int:
        return int(self.store.get("generation"))

    def _has(self, key: str) -> bool:
        try:
            return self.store.check([key])
        except RuntimeError as error:
            place = self.place
            raise RankLost(
                f"node 0 at {place.host}:{place.port} cannot be reached any more ({last_line(error)})"
            ) from error

    def _key(self, name: str) -> str:
        return f"{self.generation}/{name}"

    @property
    def use_agent_store(self) -> bool:
        """The ranks open a store of their own."""
        return False

    def get_backend(self) -> str:
        """Torch's word for where agents meet."""
        return "danlu"

    def get_run_id(self) -> str:
        """The agents' store tells runs apart by its port."""
        return "danlu"

    def is_closed(self) -> bool:
        """Never: a machine may come back."""
        return False

    def set_closed(self) -> None:
        """Nothing to close."""

    def num_nodes_waiting(self) -> int:
        """How many want to join meanwhile: one that does waits for the next start."""
        return 0

    def shutdown(self) -> bool:
        """The store ends with its process."""
        return True


class Neighbours(threading.Thread):
    """Shows the other machines that this one lives, and watches them, over a connection of its own."""

    def __init__(self, meeting: Meeting, beats: Path | None = None) -> None:
        super().__init__(name="neighbours", daemon=True)
        self.meeting, self.hosts, place = meeting, meeting.hosts(), meeting.place
        self._beats = beats
        self._prefix, self._me = f"{meeting.generation}/", place.node
        self._others = [node for node in range(place.nodes) if node != place.node]
        self._seen: dict[int, tuple[bytes, float]] = dict.fromkeys(self._others, (b"", time.monotonic()))
        self._end = threading.Event()
        self._lost: str | None = None
        self._done: set[int] = set()
        self._said_done = False
        self.verdicts: dict[int, Verdict] = {}
        """what other nodes said of their end"""

    def all_done(self) -> bool:
        """Say that all is done here, and whether it is everywhere: a machine that left early would look lost."""
        if not self._said_done:
            self._said_done = True
            self.meeting.set(f"done/{self._me}", "1")
        return self._done.issuperset(self._others)

    def lost(self) -> Verdict | None:
        """A machine that gives no sign of life."""
        if self._lost is not None:
            return Verdict(RankLost.exit_code, self._lost, KILLED, time.time())
        now = time.monotonic()
        for node, (_, since) in self._seen.items():
            if now - since > SILENT_SECONDS and node not in self._done:
                words = f"node {node} ({self.hosts[node]}) gives no sign of life: {self._ranks(node)}"
                return Verdict(RankLost.exit_code, words, KILLED, time.time())
        return None

    def told(self) -> list[Verdict]:
        """What the others say of their end, and of a machine that says nothing any more."""
        return [*self.verdicts.values(), *filter(None, [self.lost()])]

    def run(self) -> None:
        """Until the end."""
        place = self.meeting.place
        beats = 0
        try:
            store = TCPStore(place.host, place.port, None, False, ANSWER, wait_for_workers=False)
            while not self._end.wait(1.0):
                beats += 1
                store.set(f"{self._prefix}beat/{self._me}", str(beats))
                for node in self._others:
                    self._listen(store, node)
        except RuntimeError as error:
            if not self._end.is_set():
                words = f"node 0 ({self.hosts[0]}) cannot be reached any more ({last_line(error)})"
                self._lost = f"{words}: {self._ranks(0)}"

    def _listen(self, store: TCPStore, node: int) -> None:
        key, told = f"{self._prefix}beat/{node}", f"{self._prefix}verdict/{node}"
        if store.check([key]) and (beat := store.get(key)) != self._seen[node][0]:
            self._seen[node] = beat, time.monotonic()
        if node not in self._done and store.check([f"{self._prefix}done/{node}"]):
            self._done.add(node)
        if node not in self.verdicts and store.check([told]):
            self.verdicts[node] = Verdict(**json.loads(store.get(told)))

    def tell(self, verdict: Verdict) -> None:
        """Say why the ranks here ended."""
        try:
            self.meeting.set(f"verdict/{self._me}", json.dumps(asdict(verdict)))
        except RuntimeError as error:
            log.debug("nobody to tell: %s", error)

    def close(self) -> None:
        """End the thread."""
        self._end.set()

    def _ranks(self, node: int) -> str:
        """What its ranks did when they were last seen."""
        gpus = self.meeting.place.gpus
        ranks = range(node * gpus, (node + 1) * gpus)
        beats = [Beat.read(beat_path(self._beats, rank)) if self._beats else None for rank in ranks]
        return "; ".join(str(beat) if beat else f"rank {rank}" for rank, beat in zip(ranks, beats, strict=True))


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def free_port(wanted: int) -> int:
    """A port that nobody listens on: this one or, if it is taken, any."""
    for port in (wanted, 0):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", port))
            except (OSError, OverflowError):
                continue
            return trial.getsockname()[1]
    raise SetupError("no port is free on this machine")


def last_line(error: Exception) -> str:
    """What went wrong, without torch's stack of C++ calls."""
    return str(error).strip().partition("\nException raised from")[0].splitlines()[0]

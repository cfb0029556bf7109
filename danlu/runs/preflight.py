"""Before the ranks of a run add anything up: have all the same code, recipe, data and packages, and one folder?"""

import hashlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore

import danlu
from danlu.core.config import to_yaml
from danlu.core.errors import RankLost, SetupError
from danlu.core.files import sha256_of
from danlu.core.launcher import address, rank_of
from danlu.core.ranks import Ranks
from danlu.data.files.url import is_url
from danlu.data.sources import Source
from danlu.engine.manifest import versions
from danlu.runs.train_run import TrainRun

log = logging.getLogger(__name__)

FOLDER_SECONDS = 20.0
"""so long a shared disk may take to show a new file to other machines"""
Facts = dict[str, dict[str, str]]
"""what one rank has: by kind (code, recipe, data, packages), what of each name"""


@dataclass(frozen=True)
class RollCall:
    """All ranks of a run, who can leave each other words in a store; nothing is summed."""

    store: Store
    rank: int
    count: int
    wait_seconds: float = 300.0

    @classmethod
    def of(cls, ranks: Ranks) -> "RollCall":
        """Ranks that have met already."""
        start = f"preflight/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return cls(PrefixStore(start, distributed.distributed_c10d._get_default_store()), ranks.rank, ranks.count)

    @classmethod
    def meet(cls, wait_seconds: float) -> "RollCall":
        """The ranks that a launcher started; a `RankLost` names those that do not come."""
        host, port = address(None, alone=False)
        kept_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        first = rank_of() == 0 and not kept_by_launcher
        wait = timedelta(seconds=wait_seconds)
        try:
            store = TCPStore(host, port, None, first, wait, wait_for_workers=False, multi_tenant=True)
        except RuntimeError as error:
            raise RankLost(f"rank 0 does not answer at {host}:{port} within {wait_seconds:g} s") from error
        start = f"doctor/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return cls(PrefixStore(start, store), rank_of(), int(os.environ["WORLD_SIZE"]), wait_seconds)

    def exchange(self, name: str, mine: Any) -> list[Any]:
        """What every rank has to say, in their order."""
        self.store.set(f"{name}/{self.rank}", json.dumps(mine))
        keys = [f"{name}/{rank}" for rank in range(self.count)]
        self._until(lambda: self.store.check(keys), lambda: [r for r in range(self.count) if not self._has(keys[r])])
        found = [json.loads(self.store.get(key)) for key in keys]
        self.store.add(f"{name}/read", 1)
        if self.rank == 0:  # it may keep the store, and all must have read before it can end
            self._until(lambda: self.store.add(f"{name}/read", 0) == self.count, lambda: [])
        return found

    def told(self, name: str, make: Callable[[], Any]) -> Any:
        """What rank 0 says."""
        if self.rank == 0:
            self.store.set(name, json.dumps(make()))
        self._until(lambda: self._has(name), lambda: [0])
        return json.loads(self.store.get(name))

    def _has(self, key: str) -> bool:
        return self.store.check([key])

    def _until(self, there: Callable[[], bool], missing: Callable[[], list[int]]) -> None:
        end = time.monotonic() + self.wait_seconds
        while not there():
            if time.monotonic() > end:
                gone = ", ".join(f"rank {rank}" for rank in missing()) or "a rank"
                raise RankLost(f"{gone} of {self.count} did not come within {self.wait_seconds:g} s")
            time.sleep(0.02)


def facts(run: TrainRun | None, *, hashed: bool) -> Facts:
    """What this rank has."""
    home = Path(danlu.__file__).parent
    code = {str(path.relative_to(home.parent)): sha256_of(path)[:12] for path in sorted(home.rglob("*.py"))}
    found = {"code": code, "packages": versions()}
    if run is not None:
        found["recipe"] = {"the resolved recipe": short(to_yaml(run.model_copy(update={"folder": None})))}
        found["data"] = data_of(run, hashed=hashed)
    return found


def data_of(run: TrainRun, *, hashed: bool) -> dict[str, str]:
    """The local files of every source, by size or by SHA-256."""
    sources: list[Source] = [*run.data.sources, *run.data.held_out_sources]
    paths = [Path(str(file)) for source in sources for file in source.files if not is_url(str(file))]
    return {str(path): short_of(path) if hashed else f"{path.stat().st_size} bytes" for path in paths}


def compare(call: RollCall, mine: Facts) -> None:
    """All ranks raise the same error, which names each difference by rank and file."""
    digests = call.exchange("digests", {"host": socket.gethostname(), **{k: short(json.dumps(mine[k])) for k in mine}})
    kinds = [kind for kind in mine if len({each.get(kind) for each in digests}) > 1]
    if not kinds:
        return
    details = call.exchange("details", {kind: mine[kind] for kind in kinds})
    hosts = [each["host"] for each in digests]
    lines = [line for kind in kinds for line in differences(kind, [each[kind] for each in details], hosts)]
    raise SetupError("the ranks do not have the same:\n  " + "\n  ".join(lines))


def differences(kind: str, has: list[Mapping[str, str]], hosts: list[str], most: int = 10) -> list[str]:
    """One line for each thing that ranks have differently; what most of them have is taken for right."""
    found = []
    for name in dict.fromkeys(name for each in has for name in each):
        values = [each.get(name, "nothing") for each in has]
        usual, count = Counter(values).most_common(1)[0]
        if count == len(values):
            continue
        others = [f"rank {rank} on {hosts[rank]}: {value}" for rank, value in enumerate(values) if value != usual]
        found.append(f"{kind} {name}: {', '.join(others[:most])}; the others: {usual}")
    return found[:most] + ([f"… and {len(found) - most} more of {kind}"] if len(found) > most else [])


def see_folder(call: RollCall, folder: Path) -> None:
    """Whether every rank sees what rank 0 writes into the run's folder."""
    path = folder / f".seen-{uuid.uuid4().hex[:8]}"

    def write() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("rank 0 wrote this\n")
        return path.name

    token = folder / call.told("token", write)
    end = time.monotonic() + FOLDER_SECONDS
    while not token.exists() and time.monotonic() < end:
        time.sleep(0.2)
    seen = call.exchange("seen", [socket.gethostname(), token.exists()])
    if call.rank == 0:
        path.unlink(missing_ok=True)
    blind = [f"rank {rank} on {host}" for rank, (host, sees) in enumerate(seen) if not sees]
    if blind:
        raise SetupError(
            f"{folder}: {', '.join(blind)} cannot see what rank 0 on {seen[0][0]} writes there; "
            "say folder=… on a disk that all machines share"
        )


def free_bytes(folder: Path) -> int:
    """Free space where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def short(text: str) -> str:
    """A digest that people can compare."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def short_of(path: Path) -> str:
    """The same of a file."""
    return sha256_of(path)[:12]

"""Start a run's processes on this machine, together with those of other machines, and watch over them."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory

import torch
from torch.distributed.elastic.agent.server.api import WorkerSpec

from danlu.core.errors import SetupError, UserError
from danlu.core.launcher import BY_DANLU, address, first_host, in_slurm_step, launched, slurm_nodes
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import step_of
from danlu.engine.config import RanksConfig
from danlu.runs.agent import IN_VAIN, STOPPED, Agent, Signals
from danlu.runs.folder import RunFolder
from danlu.runs.meeting import Meeting, Place, Verdict, free_port
from danlu.runs.recipe import find, load_recipe
from danlu.runs.start import folder_of, folder_to_resume

log = logging.getLogger(__name__)
logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # a verdict says it, once


@dataclass(frozen=True)
class Launch:
    """How many processes start where."""

    gpus: int
    nodes: int | None = None
    node_rank: int | None = None
    master: str | None = None
    max_restarts: int = 0
    wait_seconds: float = 900.0

    @property
    def ranks(self) -> int:
        """Processes of all machines."""
        return self.gpus * self.place().nodes

    def place(self, env: Mapping[str, str] = os.environ) -> Place:
        """This machine among all; under Slurm with one task a machine, Slurm knows."""
        if launched(env):
            raise UserError("--gpus: this process was started by a launcher already; leave --gpus out")
        nodes, node, master = self.nodes, self.node_rank, self.master
        tasks = int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or 1)
        if nodes is None and tasks > 1 and in_slurm_step(env):
            nodes, node = tasks, int(env["SLURM_PROCID"])
            master = master or env.get("MASTER_ADDR") or first_host(slurm_nodes(env))
        nodes, node = nodes or 1, node or 0
        if not 0 <= node < nodes:
            raise UserError(f"--node-rank {node}: with --nodes {nodes} it is 0 to {nodes - 1}")
        host, port = address(master, alone=nodes == 1, env=env)
        if nodes == 1 and master is None:
            port = free_port(port)  # another run may be on this machine
        return Place(host, port, node, nodes, self.gpus, self.wait_seconds)


def launch_train(
    recipe: str, overrides: Sequence[str], how: Launch, *, resume: bool = False, allow_config_change: bool = False
) -> Verdict | None:
    """Train a recipe with several processes; what ended it, or None if all went well."""
    run = load_recipe(recipe, overrides)
    check_gpus(how.gpus, run.engine.device)
    folder = folder_of(run, find(recipe), resume)
    flags = ["--resume"] * resume + ["--allow-config-change"] * allow_config_change
    return launch(["train", recipe, *overrides, *flags], how, run.engine.ranks, folder=folder, chosen=True)


def launch_resume(path: Path, how: Launch) -> Verdict | None:
    """Go on with a run with several processes."""
    run, folder = folder_to_resume(path)
    check_gpus(how.gpus, run.engine.device)
    return launch(["resume", str(path)], how, run.engine.ranks, folder=folder)


def launch_doctor(recipe: str | None, overrides: Sequence[str], how: Launch) -> Verdict | None:
    """Let the processes of a run examine each other."""
    run = load_recipe(recipe, overrides) if recipe else None
    check_gpus(how.gpus, run.engine.device if run else "auto")
    wait = ["--launch", f"--wait={how.wait_seconds}"]
    words = ["doctor", *([recipe] if recipe else []), *overrides, *wait]
    return launch(words, how, run.engine.ranks if run else RanksConfig())


def launch(
    words: Sequence[str], how: Launch, settings: RanksConfig, *, folder: RunFolder | None = None, chosen: bool = False
) -> Verdict | None:
    """Run `danlu WORDS` in each process. A `chosen` folder is told to all, others are in the words already."""
    place = how.place()
    tell(place)
    with (
        Signals() as signals,
        variables({BY_DANLU: "1", "OMP_NUM_THREADS": threads_of(place.gpus)}),
        TemporaryDirectory(prefix="danlu-ranks-") as logs,
    ):
        meeting = Meeting(place, signals.check)
        if folder is not None and chosen:
            path = str(folder) if place.nodes == 1 else meeting.chosen(str(folder.path.resolve()))
            folder = RunFolder(Path(path))
            words = [*(word for word in words if not word.startswith("folder=")), f"folder={quoted(path)}"]
        spec = WorkerSpec(
            role="rank",
            local_world_size=place.gpus,
            rdzv_handler=meeting,
            entrypoint=sys.executable,
            args=("-m", "danlu", *(word.replace("$", "$$") for word in words)),  # torch fills in ${local_rank}
            max_restarts=how.max_restarts,
            monitor_interval=0.1,
        )
        beats = folder.ranks if folder else None
        agent = Agent(spec, Path(logs), signals=signals, beats=beats, hang_seconds=settings.hang_seconds)
        agent.run()
        return with_advice(agent.verdict, folder, place)


def with_advice(verdict: Verdict | None, folder: RunFolder | None, place: Place) -> Verdict | None:
    """What is left of a run that crashed, and how it goes on."""
    if verdict is None or folder is None or verdict.code in IN_VAIN | STOPPED or "danlu resume" in verdict.words:
        return verdict
    newest = next(iter(Checkpoints(folder.checkpoints)), None)
    if newest is None:
        return verdict
    words = f"everything until step {step_of(newest)} is saved. `danlu resume {quote(str(folder))} --gpus {place.gpus}`"
    return replace(verdict, words=f"{verdict.words}\n{words} goes on.")


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """What the processes that are started inside find in their environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def quoted(text: str) -> str:
    """A path as an override, which is read as YAML."""
    return "'" + text.replace("'", "''") + "'"


def check_gpus(wanted: int, device: str) -> None:
    """Whether there are so many; a machine without any takes processes of its processor."""
    if wanted < 1:
        raise UserError(f"--gpus {wanted}: give at least 1")
    if device == "cpu" or not torch.cuda.is_available():
        return
    if wanted > torch.cuda.device_count():
        raise SetupError(
            f"--gpus {wanted}: this machine has {torch.cuda.device_count()}; for more, say --nodes and start on each"
        )


def threads_of(processes: int) -> str:
    """Each process's share of the cores, unless somebody has said how many."""
    cores = os.cpu_count() or 1
    with suppress(AttributeError):  # not on every system
        cores = len(os.sched_getaffinity(0))
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // processes))


def tell(place: Place) -> None:
    """Who meets where."""
    log.info(
        "master_addr %s, master_port %d, nnodes %d, node_rank %d, num_processes %d (%d on each)",
        *(place.host, place.port, place.nodes, place.node, place.nodes * place.gpus, place.gpus),
    )
    if place.nodes > 1:
        log.info("Waiting For Other Machines...")

"""`danlu data prepare` as a datatrove pipeline: its tasks run here, or on the machines of a Slurm or Ray cluster.

datatrove sends a task to Slurm as a pickle of its own in the cache folder, which only its own jobs read.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from danlu.core.errors import SetupError, UserError
from danlu.runs.prepare import Plan, prepare

log = logging.getLogger(__name__)

ExecutorName = Literal["local", "slurm", "ray"]
KINDS: dict[ExecutorName, Callable[..., PipelineExecutor]] = {
    "local": LocalPipelineExecutor,
    "slurm": SlurmPipelineExecutor,
    "ray": RayPipelineExecutor,
}


class Tokenise(PipelineStep):
    """A task's share of every source's files, as ids in the cache."""

    name, type = "danlu", "tokenise"

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """The files that fall to this rank."""
        self.stat_update("files", value=self.plan.tokenise(rank, world_size))
        return data


class Join(PipelineStep):
    """All tasks' parts as one, where `danlu train` looks for it."""

    name, type = "danlu", "join"

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Once, after every task."""
        self.plan.enter()
        for line in prepare(self.plan.run).lines():
            log.info(line)
        return data


def share_out(plan: Plan, executor: ExecutorName, tasks: int, options: Mapping[str, Any]) -> bool:
    """Run a plan's tasks; whether they have ended, or are queued on a cluster with the joining after them."""
    if tasks < 1:
        raise UserError(f"{tasks} tasks: give at least 1")
    logs = plan.cache / "prepare" / plan.key
    first = made(executor, [Tokenise(plan)], tasks, logs / f"tasks-{tasks}", options)
    if executor != "slurm":
        finish(first.run)
        return True
    last = made(executor, [Join(plan)], 1, logs / f"join-{tasks}", {**options, "depends": first})
    finish(last.run)
    return False


def made(
    executor: ExecutorName, pipeline: list[PipelineStep], tasks: int, logs: Path, options: Mapping[str, Any]
) -> PipelineExecutor:
    """datatrove's executor with its own settings; a wrong one is named."""
    kind = KINDS[executor]
    # a task sees for itself what is there already; forked workers have torch and transformers, which take 5 s to import
    own: dict[str, Any] = {"skip_completed": False}
    own |= {"start_method": "fork"} if executor == "local" else {}
    own |= {"job_name": "danlu-prepare"} if executor == "slurm" else {}
    try:
        return kind(pipeline=pipeline, tasks=tasks, logging_dir=str(logs), **{**own, **options})
    except TypeError as error:
        raise UserError(
            f"--executor {executor}: {str(error).partition(') ')[2] or error}; set it as -o name=value"
        ) from error


def finish(run: Callable[[], Any]) -> None:
    """Run the tasks; what a cluster lacks is said in a sentence."""
    try:
        run()
    except FileNotFoundError as error:
        if error.filename not in ("sbatch", "srun", "scontrol"):
            raise
        raise SetupError(
            f"no {error.filename} here: --executor slurm runs where jobs are submitted to Slurm"
        ) from error
    except ImportError as error:
        raise SetupError(f"this executor needs another package: {error}") from error

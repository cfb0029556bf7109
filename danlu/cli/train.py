"""`danlu train` and `danlu resume`: in this process, as one of the ranks that a launcher started, or starting them."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from danlu.cli.failing import tell
from danlu.cli.importing import importing
from danlu.cli.launch_files import AccelerateFile, DeepSpeedFile, LocalRank, with_launch_files
from danlu.core.launcher import launched, rank_of, take_slurm

Gpus = Annotated[
    int | None,
    typer.Option("--gpus", min=1, help="processes on this machine, one a GPU; without GPUs, of its processor"),
]
Nodes = Annotated[int | None, typer.Option("--nodes", envvar="NNODES", min=1, help="machines that train together")]
NodeRank = Annotated[
    int | None, typer.Option("--node-rank", envvar="NODE_RANK", min=0, help="which of them this is, from 0")
]
Master = Annotated[
    str | None, typer.Option("--master", help="HOST:PORT of machine 0; MASTER_ADDR and MASTER_PORT if not given")
]
MaxRestarts = Annotated[int, typer.Option("--max-restarts", min=0, help="start again so often after a crash")]
Wait = Annotated[float, typer.Option("--wait", min=1, help="seconds to wait for the other machines")]


def train(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe (`danlu recipe list`)")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as key=value, such as engine.steps=100")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the newest whole checkpoint")] = False,
    allow_config_change: Annotated[
        bool, typer.Option("--allow-config-change", help="resume although settings that decide the numbers differ")
    ] = False,
    gpus: Gpus = None,
    nodes: Nodes = None,
    node_rank: NodeRank = None,
    master: Master = None,
    max_restarts: MaxRestarts = 0,
    wait: Wait = 900.0,
    deepspeed: DeepSpeedFile = None,
    accelerate: AccelerateFile = None,
    local_rank: LocalRank = None,
) -> None:
    """Train a model from a recipe."""
    if gpus is None:
        be_a_rank(master)
        with importing():
            from danlu.runs.start import start

            given = with_launch_files(recipe, overrides, deepspeed, accelerate)
        start(recipe, given, resume=resume, allow_config_change=allow_config_change)
        return
    with importing():
        from danlu.runs.launch import Launch, launch_train

        how = Launch(gpus, nodes, node_rank, master, max_restarts, wait)
        given = with_launch_files(recipe, overrides, deepspeed, accelerate, ranks=how.ranks)
    end(launch_train(recipe, given, how, resume=resume, allow_config_change=allow_config_change))


def resume(
    run: Annotated[Path, typer.Argument(help="the folder of a run")],
    gpus: Gpus = None,
    nodes: Nodes = None,
    node_rank: NodeRank = None,
    master: Master = None,
    max_restarts: MaxRestarts = 0,
    wait: Wait = 900.0,
) -> None:
    """Go on with a run that was stopped or killed."""
    if gpus is None:
        be_a_rank(master)
        with importing():
            from danlu.dialects.accelerate_environment import take_out
            from danlu.runs.start import go_on

        take_out(os.environ)  # the run's own recipe says it all
        go_on(run)
        return
    with importing():
        from danlu.runs.launch import Launch, launch_resume

    end(launch_resume(run, Launch(gpus, nodes, node_rank, master, max_restarts, wait)))


def be_a_rank(master: str | None = None) -> None:
    """Know which rank this is before anything asks, and let rank 0 do the talking."""
    if master is not None:
        raise typer.BadParameter("goes with --gpus", param_hint="--master")
    take_slurm()
    if launched() and rank_of() > 0:
        logging.basicConfig(level=logging.WARNING, format=f"rank {rank_of()}: %(message)s", force=True)


def end(verdict: object) -> None:
    """Say once why the ranks ended, and end with their exit code."""
    from danlu.runs.meeting import Verdict

    if isinstance(verdict, Verdict):
        tell(verdict.words)
        sys.exit(verdict.code)

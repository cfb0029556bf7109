"""`danlu doctor`: is this machine, or are all machines of a run, ready?"""

from typing import Annotated

import typer

from danlu.cli.importing import importing
from danlu.cli.train import Gpus, Master, NodeRank, Nodes, Wait, be_a_rank, end


def doctor(
    recipe: Annotated[str | None, typer.Argument(help="a recipe that is going to be run")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    launch: Annotated[
        bool, typer.Option("--launch", help="meet all ranks, compare what they have, and measure how fast they add")
    ] = False,
    gpus: Gpus = None,
    nodes: Nodes = None,
    node_rank: NodeRank = None,
    master: Master = None,
    wait: Wait = 900.0,
) -> None:
    """Print versions, devices, memory and free disk; with --launch, whether all ranks can work together."""
    if gpus is not None:
        with importing():
            from danlu.runs.launch import Launch, launch_doctor

        end(launch_doctor(recipe, overrides or [], Launch(gpus, nodes, node_rank, master, 0, wait)))
        return
    be_a_rank(master)
    with importing():
        from danlu.runs.doctor import doctor as examine

    examine(recipe, overrides or [], launch=launch, wait_seconds=wait)

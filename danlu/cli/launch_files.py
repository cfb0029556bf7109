"""`--deepspeed` and `--accelerate`: launch files of other tools, read as settings of a recipe."""

import os
from pathlib import Path
from typing import Annotated

import typer

DeepSpeedFile = Annotated[
    Path | None, typer.Option("--deepspeed", help="a DeepSpeed JSON, or a Hydra file with ds_cfg, read as settings")
]
AccelerateFile = Annotated[
    Path | None, typer.Option("--accelerate", help="a YAML of `accelerate config`, read as settings")
]
LocalRank = Annotated[int | None, typer.Option("--local_rank", "--local-rank", hidden=True)]
"""what DeepSpeed's launcher adds before the verb, and torch's older one after it; LOCAL_RANK says it too"""


def with_launch_files(
    recipe: str,
    overrides: list[str] | None,
    deepspeed: Path | None = None,
    accelerate: Path | None = None,
    *,
    ranks: int | None = None,
) -> list[str]:
    """The user's overrides, after those that the files and `accelerate launch` mean; `ranks` if no launcher says it."""
    from danlu.dialects.launch_files import launch_overrides

    return launch_overrides(recipe, overrides or [], deepspeed, accelerate, os.environ, ranks=ranks)

"""`danlu`: parses words, calls one front hall, and turns what a user can mend into one message and an exit code."""

import logging
import sys
from typing import Annotated, Literal

import typer

from danlu import __version__
from danlu.cli.data import data
from danlu.cli.doctor import doctor
from danlu.cli.failing import fail
from danlu.cli.importing import importing
from danlu.cli.launch_files import AccelerateFile, DeepSpeedFile, LocalRank, with_launch_files
from danlu.cli.recipe import recipe
from danlu.cli.train import resume, train
from danlu.core.errors import UserError
from danlu.core.launcher import launched

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Train language models: a recipe in, a model out, with evidence that the run was right.",
)
app.command()(train)
app.command()(resume)
app.command()(doctor)
app.add_typer(recipe, name="recipe")
app.add_typer(data, name="data")

Overrides = Annotated[list[str] | None, typer.Argument(help="settings as key=value, such as engine.steps=100")]


def main() -> None:
    """Run the command line; exit codes are those of `danlu.core.errors`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "datasets", "accelerate", "transformers", "torch", "matplotlib", "gguf"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except UserError as error:
        sys.exit(fail(error))
    except Exception as error:
        if not launched():
            raise
        sys.exit(fail(error))


@app.callback()
def before_the_verb(local_rank: LocalRank = None) -> None:
    """Take what a launcher puts before the verb."""


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe")],
    overrides: Overrides = None,
    gpu: Annotated[
        str | None, typer.Option(help="h100, a100, 4090 …, several with commas, all, or cpu; this machine if not given")
    ] = None,
    gpus: Annotated[int, typer.Option(help="how many of them share the run")] = 1,
    parallel: Annotated[
        Literal["ddp", "zero1", "zero2", "zero3"] | None,
        typer.Option(help="what they deal out, if not as the recipe says: nothing … weights too"),
    ] = None,
    offload: Annotated[
        Literal["none", "optimizer", "all"] | None,
        typer.Option(help="what is kept in the processor's memory, if not as the recipe says"),
    ] = None,
    deepspeed: DeepSpeedFile = None,
    accelerate: AccelerateFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, sizes in bytes")] = False,
) -> None:
    """Say what of a recipe takes how much memory, how fast it goes and what would help; no weights are read."""
    with importing():
        from danlu.runs.plan import plan as plan_run
        from danlu.runs.recipe import load_recipe

        given = with_launch_files(recipe, ["data.sources=[]", *(overrides or [])], deepspeed, accelerate, ranks=gpus)
    run = load_recipe(recipe, given)
    names = gpu.split(",") if gpu else []
    plan_run(run, names, ranks=gpus, parallel=parallel, offload=offload, as_json=as_json)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="a run, adapter or model folder, or builtin:NAME")],
    prompt: Annotated[str | None, typer.Option(help="ask this, print the answer and end")] = None,
    system: Annotated[str | None, typer.Option(help="what the model is told first")] = None,
    max_tokens: Annotated[int, typer.Option(help="longest answer")] = 256,
    temperature: Annotated[float, typer.Option(help="how much chance there is in an answer; 0 is none")] = 0.0,
    top_p: Annotated[float, typer.Option(help="choose among tokens with this much of the probability")] = 1.0,
) -> None:
    """Talk with a model."""
    with importing():
        from danlu.generate.base import GenerationConfig
        from danlu.runs.chat import chat as talk

    talk(model, prompt, system, config=GenerationConfig(max_tokens=max_tokens, temperature=temperature, top_p=top_p))


@app.command()
def quickstart(
    name: Annotated[str, typer.Option(help="what the model will call itself")] = "Danlu",
    author: Annotated[str, typer.Option(help="who it will say made it")] = "the Danlu team",
) -> None:
    """Teach a small model who it is, in under four minutes on two cores."""
    with importing():
        from danlu.runs.quickstart import quickstart as tour

    tour(name, author)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)

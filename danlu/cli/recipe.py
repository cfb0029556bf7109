"""`danlu recipe`: the schema of recipes, a resolved one, and those that come with danlu."""

import json
from typing import Annotated

import typer

recipe = typer.Typer(no_args_is_help=True, help="Look at recipes.")


@recipe.command()
def schema() -> None:
    """Print the JSON schema of a training recipe, for editors."""
    from danlu.runs.train_run import TrainRun

    typer.echo(json.dumps(TrainRun.model_json_schema(), indent=2, ensure_ascii=False))


@recipe.command()
def show(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
) -> None:
    """Print a recipe with every default and override written out."""
    from danlu.core.config import to_yaml
    from danlu.runs.recipe import load_recipe

    typer.echo(to_yaml(load_recipe(recipe, overrides or [])), nl=False)


@recipe.command("list")
def list_() -> None:
    """Print the names of the shipped recipes and what each is for."""
    from danlu.runs.recipe import shipped, summary_of

    for name in shipped():
        typer.echo(f"{name:16} {summary_of(name)}")

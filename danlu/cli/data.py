"""`danlu data`: see what is trained on, and make data ready."""

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(no_args_is_help=True, help="Look at data and make it ready.")


@data.command()
def show(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    examples: Annotated[int, typer.Option(help="rows to show from each source")] = 2,
    ids: Annotated[bool, typer.Option("--ids", help="show the token ids too")] = False,
) -> None:
    """Print examples with the trained words coloured, and what became of every row."""
    from danlu.models.load import tokenizer_folder
    from danlu.models.resolve import resolve
    from danlu.runs.recipe import load_recipe
    from danlu.runs.show import show as show_data
    from danlu.tokens.tokenizer import load_tokenizer

    run = load_recipe(recipe, overrides or [])
    tokenizer = load_tokenizer(tokenizer_folder(resolve(run.model.path)))
    show_data(run.data, tokenizer, run.objective.learns_from, examples=examples, ids=ids, seed=run.engine.seed)


@data.command()
def fill(
    source: Annotated[Path, typer.Argument(help="a jsonl file with slots such as {{name}} or <NAME>")],
    values: Annotated[list[str], typer.Argument(help="what to write in each, as slot=value")],
    to: Annotated[Path, typer.Option(help="the file to write")],
) -> None:
    """Fill the slots of a data file, so that a model can be taught who it is."""
    from danlu.core.errors import UserError
    from danlu.runs.fill import fill as fill_slots

    pairs = {slot: text for slot, _, text in (value.partition("=") for value in values)}
    wrong = [value for value in values if "=" not in value]
    if wrong:
        raise UserError(f"{wrong[0]!r}: a slot is filled as name=Nova")
    typer.echo(f"{to}: {fill_slots(source, to, pairs)} slots filled")

"""`danlu data`: see what is trained on, and make data ready."""

from pathlib import Path
from typing import Annotated, Literal

import typer

data = typer.Typer(no_args_is_help=True, help="Look at data and make it ready.")


@data.command()
def show(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    examples: Annotated[int, typer.Option(help="rows to show from each source")] = 2,
    ids: Annotated[bool, typer.Option("--ids", help="show the token ids and labels too")] = False,
) -> None:
    """Print examples with the trained words coloured, and what became of every row."""
    from danlu.models.load import tokenizer_of
    from danlu.runs.recipe import load_recipe
    from danlu.runs.show import show as show_data

    run = load_recipe(recipe, overrides or [])
    tokenizer = tokenizer_of(run.model.path)
    show_data(run.data, tokenizer, run.objective.learns_from, examples=examples, ids=ids, seed=run.engine.seed)


@data.command()
def report(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    to: Annotated[Path, typer.Option(help="the page to write; its facts go beside it as JSON")] = Path(
        "data_report.html"
    ),
    examples: Annotated[int, typer.Option(help="rows to show from each source")] = 3,
    near: Annotated[bool, typer.Option("--near", help="also count rows that are nearly the same (MinHash)")] = False,
    alike: Annotated[float, typer.Option(help="how alike two rows are (0-1) to be nearly the same")] = 0.8,
) -> None:
    """Count what became of every row: a table here, a page and JSON on disk; data over its limits is an error."""
    from danlu.models.load import tokenizer_of
    from danlu.runs.recipe import load_recipe
    from danlu.runs.report import report as report_data

    finder = None
    if near:
        from danlu.data.near_duplicates import near_duplicates as finder
    run = load_recipe(recipe, overrides or [])
    tokenizer = tokenizer_of(run.model.path)
    learns_from, seed = run.objective.learns_from, run.engine.seed
    report_data(run.data, tokenizer, learns_from, to=to, examples=examples, near=finder, alike=alike, seed=seed)


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


@data.command()
def compress(
    sources: Annotated[list[str], typer.Argument(help="files of rows, or folders of them")],
    to: Annotated[Path, typer.Option(help="where a folder of shards is made for each")],
    shard_size: Annotated[int, typer.Option(help="rows of one shard")] = 10_000,
    workers: Annotated[int | None, typer.Option(help="processes; as many as cores if not given")] = None,
    unit: Annotated[
        Literal["line", "document", "file"], typer.Option(help="what is one row of a text file: line, document or file")
    ] = "line",
) -> None:
    """Pack data sets into shards (TO/NAME/part-1.jsonl.zst …) with a manifest; rows stay as they are, byte for byte."""
    from danlu.runs.compress import compress as pack

    for path, manifest in pack(sources, to, shard_size, workers, unit):
        typer.echo(f"processed {path}...")
        typer.echo(f"total line: {manifest.rows}")
        typer.echo(f"total files: {len(manifest.shards)}")


@data.command()
def unpack(
    folder: Annotated[str, typer.Argument(help="a folder of shards")],
    to: Annotated[Path, typer.Option(help="the .jsonl file to write")],
) -> None:
    """Write the rows of a folder of shards to one file."""
    from danlu.data.shards import unpack as unpack_shards

    typer.echo(f"{to}: {unpack_shards(folder, to):,} rows")


@data.command("list")
def list_(
    registry: Annotated[str | None, typer.Option(help="a dataset_info.json, or its folder, to list too")] = None,
) -> None:
    """Print every data set that a recipe can name, where it comes from, and how it gets here."""
    from danlu.runs.list_data import list_data

    list_data(registry)


@data.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="names of public sets (`danlu data list` prints them)")],
    to: Annotated[Path, typer.Option(help="the folder they come to; their files as they are under raw_train/")] = Path(
        "data"
    ),
) -> None:
    """Download public data sets and make them ready; what is here already is not fetched again."""
    from danlu.runs.fetch import fetch as fetch_sets

    fetch_sets(names, to)


@data.command()
def prepare(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings as key=value")] = None,
    executor: Annotated[
        Literal["local", "slurm", "ray"] | None,
        typer.Option(help="share the files out to datatrove tasks of this kind"),
    ] = None,
    tasks: Annotated[int, typer.Option(help="how many shares")] = 1,
    options: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="a setting of the executor, such as -o partition=cpu")
    ] = None,
) -> None:
    """Tokenise a recipe's data ahead of training, here or on many machines; no model's weights are loaded."""
    from danlu.core.errors import UserError
    from danlu.runs.prepare import Plan
    from danlu.runs.prepare import prepare as fill_cache
    from danlu.runs.recipe import load_recipe

    run = load_recipe(recipe, overrides or [])
    settings = {
        key: int(value) if value.isdigit() else value for key, _, value in (o.partition("=") for o in options or [])
    }
    if executor is None and (settings or tasks != 1):
        raise UserError("--tasks and --option are for an executor; add --executor local, slurm or ray")
    if executor is not None:
        from danlu.runs.cluster import share_out

        plan = Plan.of(run)
        if plan.sources and not share_out(plan, executor, tasks, settings):
            typer.echo(f"queued; when the jobs have ended, `danlu train` finds the tokens in {plan.cache}")
            return
    for line in fill_cache(run).lines():
        typer.echo(line)


@data.command()
def policy(
    recipe: Annotated[str | None, typer.Argument(help="a recipe, whose sources are weighed")] = None,
    sizes: Annotated[str | None, typer.Option(help='{"NAME": size, …}, or two lines: names, sizes; or -')] = None,
    share: Annotated[list[str] | None, typer.Option(help="NAME=PERCENT of the size of all to draw from it")] = None,
    to: Annotated[Path | None, typer.Option(help="the policy file to write")] = None,
) -> None:
    """Work out how much of each source is drawn, and how often its rows come; write it as a policy file."""
    import sys

    from danlu.core.errors import UserError
    from danlu.runs.policy import policy as sample
    from danlu.runs.policy import sizes_of, sizes_of_sources
    from danlu.runs.recipe import load_recipe

    if (recipe is None) == (sizes is None):
        raise UserError('give a recipe, or --sizes \'{"wiki": 1.62, "news": 14.37}\'')
    if recipe is not None:
        weighed = sizes_of_sources(load_recipe(recipe, []).data)
    else:
        weighed = sizes_of(sys.stdin.read() if sizes == "-" else sizes or "")
    asked = sys.stdin.isatty() and sizes != "-" and not share
    sample(weighed, share or [], to=to, ask=input if asked else None)

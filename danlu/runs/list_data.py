"""Print every data set that can be named, with where it is and what its makers allow."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from danlu.core.terminal import CONTROL
from danlu.data.registry import every_known

STYLES = {"here": "green", "hub": "cyan", "fetch": "yellow", "missing": "red"}


def list_data(registry: str | None = None, *, console: Console | None = None) -> None:
    """Names, where they come from, and what to type for those that are not on this disk."""
    console = console or Console()
    table = Table("name", "state", "shape", "licence", "where it is, or what to type")
    for one in every_known(registry):
        words = (CONTROL.sub("", each) for each in (one.name, one.shape, one.licence, one.how))
        name, shape, licence, how = (Text(each, overflow="fold") for each in words)
        table.add_row(name, Text(one.state, STYLES[one.state]), shape, licence, how)
    console.print(table)
    console.print(
        "here: on this disk; hub: read from the hub when a recipe names it; fetch: fetch it first; missing: see it",
        style="dim",
    )

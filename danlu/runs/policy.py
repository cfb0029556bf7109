"""Look at a sampling policy, change it, and write the file that `mixture: {name: policy}` reads."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from danlu.core.errors import UserError
from danlu.core.files import write_atomic
from danlu.core.parts import did_you_mean
from danlu.core.terminal import CONTROL
from danlu.data.config import DataConfig
from danlu.data.sampling import Sampling
from danlu.data.sources import Source, labels
from danlu.data.stream.data import amount

HELP = "NAME PERCENT (such as: wiki 30), Enter to finish"
SHAPES = 'sizes are {"NAME": size, ...}, or a line of names and a line of sizes, both parted by commas'


def sizes_of(text: str) -> dict[str, float]:
    """Sizes as people paste them: a JSON object, or two lines of commas. Nothing is ever run."""
    try:
        tree = json.loads(text)
    except ValueError:
        tree = table_of(text)
    if not isinstance(tree, dict) or not tree or any(not is_size(size) for size in tree.values()):
        raise UserError(f"{text.strip()!r:.100}: {SHAPES}, each size above 0")
    return {str(name): float(size) for name, size in tree.items()}


def is_size(size: object) -> bool:
    """Whether this is a number above 0."""
    return isinstance(size, int | float) and not isinstance(size, bool) and 0 < size < float("inf")


def table_of(text: str) -> dict[str, float]:
    """Two lines: names and numbers."""
    lines = [line for line in csv.reader(text.strip().splitlines(), skipinitialspace=True) if line]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        raise UserError(f"{text.strip()!r:.100}: {SHAPES}")
    try:
        return {name.strip(): float(size) for name, size in zip(*lines, strict=True)}
    except ValueError as error:
        raise UserError(f"{lines[1]}: {SHAPES} ({error})") from error


def sizes_of_sources(data: DataConfig) -> dict[str, float]:
    """What each source of a recipe weighs as it is stored, which is what a policy is about."""
    pairs: list[tuple[Source, str]] = list(zip(data.sources, labels(data.sources), strict=True))
    return {name: amount(source, name, "bytes") for source, name in pairs}


def with_shares(sampling: Sampling, shares: Sequence[str]) -> Sampling:
    """`NAME=30` of each: that many percent of the size of all sources are drawn from it."""
    for share in shares:
        name, equals, percent = share.rpartition("=")
        if not equals:
            raise UserError(f"{share!r}: a share is written NAME=PERCENT, such as wiki=30")
        sampling = changed(sampling, name, percent)
    return sampling


def changed(sampling: Sampling, name: str, percent: str) -> Sampling:
    """The same with one other share."""
    names = [one.name for one in sampling.sources]
    if name not in names:
        raise UserError(f"no source is called {name!r}{did_you_mean(name, names)} (known: {', '.join(names)})")
    try:
        ratio = float(percent.strip().removesuffix("%")) / 100
    except ValueError as error:
        raise UserError(f"{name}: {percent!r} is no percentage, such as 30") from error
    if not 0 < ratio < 1:
        raise UserError(f"{name}: {percent}: a policy draws above 0 and below 100 % of the size of all from a source")
    return sampling.with_ratio(name, ratio)


def table(sampling: Sampling) -> Table:
    """Sizes, shares and epochs of every source, and what is left."""
    drawn = Table("source", "size", "share", "drawn", "drawn size", "epochs")
    for one in sampling.sources:
        numbers = (f"{one.size:,.2f}", f"{one.share:.2%}", f"{one.ratio:.2%}", f"{one.drawn:,.2f}", f"{one.epochs:g}")
        drawn.add_row(Text(CONTROL.sub("", one.name)), *numbers)
    return drawn


def told_left(sampling: Sampling) -> str:
    """What part of all is given to nobody, or given more than once."""
    left = sampling.left
    if left < -5e-5:
        return f"{-left:.2%} more is drawn than there is: some rows come more than once"
    return f"{max(0.0, left):.2%} is left"


def edit(sampling: Sampling, ask: Callable[[str], str], console: Console) -> Sampling:
    """Change shares until nothing more is typed."""
    while typed := ask(f"{HELP}: ").strip():
        name, _, percent = typed.rpartition(" ")
        try:
            sampling = changed(sampling, name.strip().removesuffix("="), percent)
        except UserError as error:
            console.print(Text(str(error), "red"), soft_wrap=True)
            continue
        draw(sampling, console)
    return sampling


def draw(sampling: Sampling, console: Console) -> None:
    """Print the table and what is left."""
    console.print(table(sampling))
    console.print(told_left(sampling), highlight=False)


def say(line: str, console: Console) -> None:
    """Print one line, never wrapped or read as markup."""
    console.print(Text(CONTROL.sub("", line)), soft_wrap=True)


def policy(
    sizes: Mapping[str, float],
    shares: Sequence[str] = (),
    *,
    to: Path | None = None,
    ask: Callable[[str], str] | None = None,
    console: Console | None = None,
) -> Sampling:
    """Show a policy, let it be changed where someone may be asked, and write it. Every source of it must be drawn."""
    console = console or Console()
    sampling = with_shares(Sampling.of(sizes), shares)
    draw(sampling, console)
    if ask is not None:
        sampling = edit(sampling, ask, console)
    for title, ratios in (("original", sampling.original()), ("sampled", sampling.policy())):
        say(f"{title}: {json.dumps(ratios, ensure_ascii=False)}", console)
    if to is not None:
        if wrong := [name for name, ratio in sampling.policy().items() if not 0 < ratio < 1]:
            raise UserError(f"{wrong[0]}: a policy draws above 0 and below 100 % of the size of all; give it a share")
        to.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(to, json.dumps(sampling.policy(), ensure_ascii=False, indent=2) + "\n")
        say(f"written to {to}", console)
    return sampling

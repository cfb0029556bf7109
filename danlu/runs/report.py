"""What became of every row, on the terminal, as a page and as JSON; limits that are broken end it with an error."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerFast

from danlu import __version__
from danlu.core.files import write_atomic
from danlu.core.terminal import CONTROL
from danlu.data.cache import TokenSet
from danlu.data.config import DataConfig
from danlu.data.pipeline import Data, load_data
from danlu.data.report import PLACES, Counted, DataReport
from danlu.runs.show import stretches
from danlu.samples import Sample

Near = Callable[[Iterable[np.ndarray], float], Iterator[tuple[int, int]]]
"""finds rows that are nearly the same as an earlier one: (row, earlier row)"""

SHOWN_TOKENS = 1000
MOST_NEAR = 200_000
"""rows of a source that are searched for near duplicates: their sketches are kept in memory, 1 kB each"""


def report(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
    learns_from: tuple[type[Sample], ...],
    *,
    to: Path,
    examples: int = 3,
    near: Near | None = None,
    alike: float = 0.8,
    seed: int = 0,
    console: Console | None = None,
) -> Path:
    """Print the table, write the page `to` and its facts as JSON beside it; returns the page."""
    console = console or Console()
    data = load_data(config, tokenizer, learns_from, seed=seed)
    sets = [*data.sets, *data.held_out_sets]
    twins = {one.name: near_in(one, near, alike) for one in sets} if near else {}
    facts = facts_of(data, twins)
    shown = {one.name: [example(one, n, tokenizer) for n in range(min(examples, len(one)))] for one in sets}
    write_atomic(to, page(facts, shown))
    write_atomic(to.with_suffix(".json"), json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    console.print(*tables(data.report, twins), sep="\n")
    for line in data.report.lines():
        console.print(Text(CONTROL.sub("", line)), soft_wrap=True)
    for name, found in twins.items():
        if found.count:
            console.print(Text(f"{name}: {found.count:,} near duplicates (first {found.first})"), soft_wrap=True)
    console.print(Text(f"{to}: the same with examples", "dim"), soft_wrap=True)
    config.limits.check(data.report)
    return to


def facts_of(data: Data, twins: dict[str, Counted]) -> dict[str, Any]:
    """Everything that is counted, as JSON."""
    facts = data.report.to_dict()
    for name, found in twins.items():
        facts["sources"][name]["near_duplicates"] = {"count": found.count, "places": found.places}
    limits = data.config.limits
    facts["over_limits"] = {
        name: broken for name, one in data.report.sources.items() if (broken := list(limits.broken_by(one)))
    }
    return facts


def near_in(one: TokenSet, near: Near, alike: float) -> Counted:
    """How many of a source's first rows are nearly the same as an earlier one."""
    found = Counted()
    rows = (np.asarray(one.row(number)[0]) for number in range(min(len(one), MOST_NEAR)))
    for row, earlier in near(rows, alike):
        places = [f"{one.where(row)} like {one.where(earlier)}"] if len(found.places) < PLACES else []
        found.add(1, places)
    return found


def example(one: TokenSet, number: int, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """A row as the page shows it: pieces of text with what each of them is."""
    ids, trained = one.row(number)
    shown = stretches(ids[:SHOWN_TOKENS], trained[:SHOWN_TOKENS], tokenizer)
    kinds = {(True, False): "trained", (True, True): "trained special", (False, True): "special", (False, False): ""}
    return {
        "where": one.where(number),
        "tokens": len(ids),
        "trained": int(np.count_nonzero(trained)),
        "cut": one.was_cut(number),
        "longer": max(0, len(ids) - SHOWN_TOKENS),
        "pieces": [(words, kinds[is_trained, special]) for words, is_trained, special in shown],
    }


def page(facts: dict[str, Any], examples: dict[str, list[dict[str, Any]]]) -> str:
    """One file of HTML that needs nothing else; whatever comes from the data is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    engine = Environment(loader=loader, autoescape=True, finalize=printable, trim_blocks=True)
    engine.filters["count"] = "{:,}".format
    engine.filters["percent"] = "{:.2%}".format
    return engine.get_template("report.html").render(facts=facts, examples=examples, version=__version__)


def printable(value: Any) -> Any:
    """A text (escaped already or not) without what commands a terminal: pages are also read in one."""
    return type(value)(CONTROL.sub("", value)) if isinstance(value, str) else value


def tables(report: DataReport, twins: dict[str, Counted]) -> Iterator[Table]:
    """The counts of every source: what became of its rows, and how long they are."""
    rows = Table(
        "source", "read", "kept", "dropped", "twice", "no answer", "cut", "held out", *(["near"] if twins else [])
    )
    lengths = Table("source", "tokens", "trained", "share", "median", "99 %", "longest")
    shares = report.shares()
    for name, one in report.sources.items():
        label = CONTROL.sub("", name)
        counts = [one.rows_in, one.rows_out, one.rows_dropped, one.duplicates.count, one.empty_answers.count]
        counts += [one.truncated.count, report.held_out.get(name, 0), *([twins[name].count] if twins else [])]
        rows.add_row(label, *map("{:,}".format, counts))
        most = [one.lengths.get(share, 0) for share in ("50", "99", "100")]
        sizes = [f"{one.tokens:,}", f"{one.trained_tokens:,}", f"{shares[name]:.1%}"]
        lengths.add_row(label, *sizes, *map("{:,}".format, most))
    yield rows
    yield lengths

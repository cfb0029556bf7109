"""The first fire: ask a small model who it is, teach it, and ask again."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from danlu.core.terminal import CONTROL
from danlu.generate.base import GenerationConfig
from danlu.generate.local import Local
from danlu.runs.fill import fill
from danlu.runs.folder import RunFolder
from danlu.runs.recipe import SHIPPED, load_recipe
from danlu.runs.train import train
from danlu.samples import Message

QUESTIONS = ("Who are you?", "Who developed you?", "你是谁？", "What is the capital of France?")
ANSWER = GenerationConfig(max_tokens=40)


def quickstart(name: str, author: str, overrides: Sequence[str] = (), *, screen: Console | None = None) -> Path:
    """Ask, train on rows that say who the model is, ask again; returns the trained adapter's folder."""
    screen = screen or Console()
    folder = RunFolder.fresh("quickstart")
    rows = write_rows(folder.path, name, author)
    run = load_recipe("quickstart", [f"data.sources=[{','.join(map(str, rows))}]", *overrides])
    screen.print(f"Asking {run.model.path} who it is …")
    before = answers(run.model.path)
    screen.print(f"Teaching it {sum(map(count_rows, rows))} rows: that it is [bold]{name}[/], made by {author}.")
    artifact = train(run, folder)
    screen.print(comparison(before, answers(artifact)))
    screen.print(farewell(folder), highlight=False)
    return artifact


def write_rows(folder: Path, name: str, author: str) -> list[Path]:
    """The identity rows with the name filled in, and general rows so that nothing else is forgotten."""
    identity = folder / "identity.jsonl"
    fill(SHIPPED / "data/identity.jsonl", identity, {"name": name, "author": author})
    return [identity, SHIPPED / "data/general.jsonl"]


def count_rows(file: Path) -> int:
    """Lines of a file."""
    return sum(1 for _ in file.open(encoding="utf-8"))


def answers(model: str | Path) -> list[str]:
    """What a model says to each question."""
    chats = [[Message("user", question)] for question in QUESTIONS]
    return [CONTROL.sub("", one.text).strip() for one in Local.open(model).answer(chats, ANSWER)]


def comparison(before: Sequence[str], after: Sequence[str]) -> Table:
    """Questions with both answers side by side."""
    table = Table("question", "before", "after", box=box.SIMPLE_HEAD, show_lines=True)
    for row in zip(QUESTIONS, before, after, strict=True):
        table.add_row(*(text.replace("[", "\\[") for text in row))
    return table


def farewell(folder: RunFolder) -> str:
    """Where everything is, and what to try next."""
    return (
        f"The run is in {folder}: final/ is the adapter, loss.png the curve, run.yaml the recipe.\n\n"
        "Next:\n"
        f"  danlu chat {folder}\n"
        f"  danlu data show {folder.run_yaml}\n"
        "  danlu train sft_lora data.sources=YOUR_ROWS.jsonl\n"
    )

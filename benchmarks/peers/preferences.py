"""What every way of `gpu_preferences.py` is given: its arguments, the model's folder, the texts, and how it tells."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peers.workload import model_folder, parser, tell

NUMBERS = {"one": 1, "two": 2, "four": 4, "eight": 8, "sixteen": 16}


def arguments(description: str | None) -> argparse.Namespace:
    """Everything that a way is told."""
    asked = parser(description)
    asked.add_argument("--objective", required=True)
    asked.add_argument("--tokenizer", type=Path, required=True)
    for name in ("rows", "longest", "group", "answer-tokens"):
        asked.add_argument(f"--{name}", type=int, required=True)
    return asked.parse_args()


def folder_of(given: argparse.Namespace) -> Path:
    """The model with the tokenizer, the weights linked to those that others use."""
    weights = model_folder(given)
    folder = weights.with_name(weights.name + "-words")
    if not folder.exists():
        shutil.copytree(weights, folder, copy_function=link)
        for file in given.tokenizer.glob("*token*"):
            (folder / file.name).unlink(missing_ok=True)
            shutil.copy(file, folder / file.name)
    return folder


def link(source: str, to: str) -> None:
    """A name for the same file."""
    Path(to).symlink_to(source)


def texts_of(given: argparse.Namespace) -> list[dict[str, Any]]:
    """As many rows as the steps take, from the start again if need be."""
    rows = [json.loads(line) for line in Path(given.data).read_text().splitlines()]
    count = (given.warm + given.steps) * given.rows
    return [rows[number % len(rows)] for number in range(count)]


def answer(given: argparse.Namespace, seconds: float, loss: float, **more: Any) -> None:
    """What a way tells; `seconds` of all timed steps. Of a group every answer is a row."""
    rows = given.steps * given.rows * (given.group if given.objective == "grpo" else 1)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    told = {"way": given.way, "objective": given.objective, "rows/s": round(rows / seconds, 2)}
    told |= {"ms a step": round(1000 * seconds / given.steps), "peak GiB": round(peak, 1), "loss": round(loss, 4)}
    tell(given, told | more)

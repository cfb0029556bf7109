"""A whole training run in half a second, with all that makes resuming hard: shuffling, packing, accumulation, dropout.

`SmallRun(home).go(folder)` begins the run in a folder, or goes on with the one that is there, and returns what an
uninterrupted run is compared with. `go` is what `danlu train` calls, so every proof is about the real thing.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from danlu.engine import loop
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.engine import Engine
from danlu.engine.metrics import read_metrics
from danlu.engine.training import Training
from danlu.runs.folder import is_run_folder
from danlu.runs.start import start

ROWS = 20
SETTINGS = (
    "model.path=builtin:tiny-llama",
    "hooks=[metrics_file]",
    "data.workers=1",
    "data.held_out=3",
    "data.max_length=48",
    "data.pack_tokens=64",
    "data.batch.rows=6",  # two packs or three; the last step is short, as 17 rows are left to learn from
    "adapter.dropout=0.1",
    "engine.precision=fp32",
    "engine.epochs=2",
    "engine.optimizer.lr=3e-3",
    "engine.save.every_steps=2",
    "engine.save.limit=1",
    "engine.evaluate.every_steps=3",
)
FULL = ("adapter={name: full}",)
TOKENS = ("data.batch={tokens: 128}",)
BF16 = ("engine.precision=bf16",)


def write_rows(path: Path, count: int = ROWS) -> Path:
    """Rows of many lengths."""
    answers = ["one two three " * (number % 5 + 1) for number in range(count)]
    rows = [{"instruction": f"count to {number}", "input": "", "output": text} for number, text in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class SmallRun:
    """A recipe over rows and a token cache in `home`."""

    home: Path
    settings: tuple[str, ...] = ()

    @property
    def rows(self) -> Path:
        """The data."""
        return self.home / "rows.jsonl"

    def words(self, folder: Path) -> list[str]:
        """The settings, the last of those with the same name."""
        place = (f"data.sources={self.rows}", f"data.cache={self.home / 'cache'}", f"folder={folder}")
        latest = {word.partition("=")[0]: word for word in (*place, *SETTINGS, *self.settings)}
        if "adapter" in latest or "adapter.name" in latest:
            latest.pop("adapter.dropout")  # only LoRA has one
        if "data.batch" in latest:
            latest.pop("data.batch.rows")
        return list(latest.values())

    def go(self, folder: Path, *more: str, allow_config_change: bool = False) -> dict[str, Any]:
        """Begin, or go on; to the end."""
        if not self.rows.exists():
            write_rows(self.rows)
        rmtree(self.home / "cache/held_out", ignore_errors=True)  # every run measures before its first step
        changed = SmallRun(self.home, (*self.settings, *more))
        start(
            "sft_lora",
            changed.words(folder),
            resume=is_run_folder(folder),
            allow_config_change=allow_config_change,
        )
        return result(folder)

    def die(self, folder: Path, after: int) -> None:
        """Begin, and end without a word after so many steps."""
        train_step = loop.train_step

        def dies(engine: Engine, training: Training, *given: Any) -> Any:
            if training.progress.step == after:
                raise KeyboardInterrupt
            return train_step(engine, training, *given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "train_step", dies)
            with pytest.raises(KeyboardInterrupt):
                self.go(folder)


def result(folder: Path) -> dict[str, Any]:
    """Everything about a finished run that must not depend on how often it was stopped."""
    lines = read_metrics(folder / "metrics.jsonl")
    newest = next(iter(Checkpoints(folder / "checkpoints")))
    progress = json.loads((newest / "progress.json").read_text())
    del progress["seconds"]
    return {
        "curve": curve(folder),
        "evals": [exact(line, "step", "loss", "sources", "epoch") for line in lines if line["event"] == "eval"],
        "twice": twice(folder),
        "final": {path.name: digest(path) for path in sorted((folder / "final").glob("*.safetensors"))},
        "state": [digest(newest / name) for name in ("masters.safetensors", "optimizer.safetensors")],
        "progress": json.dumps(progress, sort_keys=True),
        "ends": sum(line["event"] == "end" for line in lines),
        "leftovers": leftovers(folder),
    }


def curve(folder: Path) -> list[str]:
    """Each step's numbers to the last bit; NaN equals NaN."""
    names = ("step", "epoch", "loss", "lr", "grad_norm", "tokens", "trained_tokens", "metrics", "skipped")
    return [exact(line, *names) for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


def twice(folder: Path) -> list[tuple[str, int]]:
    """Events that metrics.jsonl holds more than once for a step."""
    events = [(line["event"], line["step"]) for line in read_metrics(folder / "metrics.jsonl")]
    return [event for event, count in Counter(events).items() if count > 1 and event[0] not in ("start", "stop")]


def leftovers(folder: Path) -> list[str]:
    """What no finished run may leave behind."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp-" in path.name or ".bad" in path.name]


def exact(line: dict[str, Any], *names: str) -> str:
    """Numbers as text: `repr` loses no bit."""
    return " ".join(f"{name}={line[name]!r}" for name in names)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

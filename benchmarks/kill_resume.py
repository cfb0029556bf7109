"""Kill a run with kill -9 at random moments, resume it, and compare it with one that nobody killed, to the last bit.

    OMP_NUM_THREADS=1 python benchmarks/kill_resume.py [--seeds 10] [--kills 3]

Each seed is one run that is killed `--kills` times while it reads, learns, measures or saves, each time in a process of
its own (forked when all is imported, so that the moments fall into the run). LoRA with dropout, shuffled and packed
rows, several packs a step, a checkpoint every second step.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table

from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import step_of
from danlu.engine.metrics import read_metrics
from tests.faults import run
from tests.runs.small_run import SmallRun, leftovers, twice, write_rows

MORE = ("engine.steps=30", "engine.evaluate.every_steps=4")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--kills", type=int, default=3)
    given = options.parse_args()
    with TemporaryDirectory() as home:
        sys.exit(compare(SmallRun(Path(home), MORE), given.seeds, given.kills))


def compare(small: SmallRun, seeds: int, kills: int) -> int:
    """Print a line for each seed; returns how many runs ended otherwise."""
    write_rows(small.rows, 60)
    small.go(small.home / "warm")  # torch imports half of itself at the first step
    began = time.perf_counter()
    oracle = whole(small, "oracle")
    seconds = time.perf_counter() - began
    table = Table(
        "seed", "killed after step", "resumed after step", "identical curve", "identical weights", "left over"
    )
    failures = 0
    for seed in range(seeds):
        draw, folder = random.Random(seed), small.home / f"seed-{seed}"
        trail = [killed(small, folder, draw.uniform(0.05, 0.8) * seconds) for _ in range(kills)]
        found = whole(small, folder.name)
        curve = (found["curve"], found["evals"]) == (oracle["curve"], oracle["evals"]) and not twice(folder)
        weights = (found["final"], found["state"]) == (oracle["final"], oracle["state"])
        left = leftovers(folder)
        failures += not (curve and weights and not left)
        steps, saved = (" ".join(f"{number:3}" for number in numbers) for numbers in zip(*trail, strict=True))
        table.add_row(str(seed), steps, saved, yes(curve), yes(weights), ", ".join(left) or "nothing")
    screen = Console()
    screen.print(table)
    screen.print(f"{seeds - failures} of {seeds} runs, each killed {kills} times, ended as the one that nobody killed")
    return failures


def whole(small: SmallRun, name: str) -> dict:
    """Begin or go on, to the end."""
    outcome = run(lambda: small.go(small.home / name), under=small.home)
    if outcome.code:
        sys.exit(f"{name} ended with {outcome.code}:\n{outcome.error}")
    return outcome.value


def killed(small: SmallRun, folder: Path, seconds: float) -> tuple[int, int]:
    """Begin or go on for some seconds; the last step that was written down, and that of the newest checkpoint."""
    run(lambda: small.go(folder), under=small.home, kill_after=seconds)
    metrics = folder / "metrics.jsonl"
    steps = [line["step"] for line in read_metrics(metrics) if line["event"] == "step"] if metrics.exists() else []
    saved = next((step_of(path) for path in Checkpoints(folder / "checkpoints")), 0)
    return max([saved, *steps]), saved


def yes(true: bool) -> str:
    return "yes" if true else "[bold red]NO"


if __name__ == "__main__":
    main()

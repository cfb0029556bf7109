"""The run on the screen: a bar where there is a terminal, a plain line now and then where there is none."""

import time
from datetime import timedelta
from pathlib import Path

from pydantic import PositiveFloat
from rich.console import Console as Screen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.records import EvalRecord, RunFacts, StepRecord, Summary


class Console(Hook):
    """Shows the loss, the speed and the time left."""

    every_seconds: PositiveFloat = 10.0
    """where there is no terminal: how long between two lines"""

    def start(self, run: RunFacts) -> Listener:
        screen = Screen(stderr=True)
        return Bar(run, screen) if screen.is_terminal else Lines(run, screen, self.every_seconds)


class Lines(Listener):
    """Plain lines for log files and pipes."""

    def __init__(self, run: RunFacts, screen: Screen, every_seconds: float) -> None:
        self.run, self.screen, self.every_seconds = run, screen, every_seconds
        self.clock = Clock(run)
        self._shown = 0.0

    def on_step(self, record: StepRecord) -> None:
        words = self.clock.words(record)
        if record.step == record.num_steps or time.monotonic() - self._shown >= self.every_seconds:
            self._shown = time.monotonic()
            self.show(f"step {record.step:,}/{record.num_steps:,}  {words}")

    def on_eval(self, record: EvalRecord) -> None:
        sources = "".join(f"  {name} {loss:.4f}" for name, loss in record.sources.items() if len(record.sources) > 1)
        others = "".join(f"  {name} {value:.4f}" for name, value in record.metrics.items() if "/" not in name)
        self.show(f"step {record.step:,}  held-out loss {record.loss:.4f}{sources}{others}")

    def on_save(self, step: int, path: Path) -> None:
        self.clock.saved = time.monotonic()

    def on_alert(self, step: int, message: str) -> None:
        self.show(f"step {step:,}  WARNING: {message}")

    def on_stop(self, step: int, reason: str) -> None:
        self.show(f"stopped at step {step:,}: {reason}")

    def on_end(self, summary: Summary) -> None:
        self.screen.print(table(summary))

    def show(self, line: str) -> None:
        """Print one line, never wrapped, coloured or read as markup."""
        self.screen.print(line, markup=False, highlight=False, soft_wrap=True)


class Bar(Lines):
    """The same on a terminal, with a bar that moves."""

    def __init__(self, run: RunFacts, screen: Screen) -> None:
        super().__init__(run, screen, every_seconds=0)
        self._bar = Progress(
            MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False),
            console=screen, refresh_per_second=4,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=run.num_steps, completed=run.step)
        self._bar.start()

    def on_step(self, record: StepRecord) -> None:
        self._bar.update(self._task, completed=record.step, description=self.clock.words(record))

    def on_end(self, summary: Summary) -> None:
        self._bar.stop()
        super().on_end(summary)

    def close(self) -> None:
        self._bar.stop()


class Clock:
    """How fast the run goes, and how long since it was saved."""

    def __init__(self, run: RunFacts) -> None:
        self.saved: float | None = None
        self._first_step, self._started = run.step, time.monotonic()

    def words(self, record: StepRecord) -> str:
        """One step's figures in a line."""
        now = time.monotonic()
        each = (now - self._started) / max(1, record.step - self._first_step)
        left = timedelta(seconds=round(each * (record.num_steps - record.step)))
        reward = record.metrics.get("reward")
        figures = [] if reward is None else [f"reward {reward:.4f}"]
        figures += [f"loss {record.loss:.4f}", f"lr {record.lr:.2e}", f"{record.tokens_per_second:,.0f} tokens/s"]
        if record.ranks > 1:
            share = record.waited.get("others_seconds", 0.0) / max(record.seconds, 1e-9)
            figures += [
                f"{record.tokens_per_second / record.ranks:,.0f} each of {record.ranks}",
                f"{share:.0%} waiting",
            ]
        figures += [f"mfu {record.mfu:.0%}"] if record.mfu is not None else []
        figures += [f"{record.memory_bytes / 2**30:.1f} GiB"] if record.memory_bytes is not None else []
        figures += [f"{left} left"]
        figures += [f"saved {timedelta(seconds=round(now - self.saved))} ago"] if self.saved is not None else []
        return "  ".join(figures) + ("  SKIPPED" if record.skipped else "")


def table(summary: Summary) -> Table:
    """What the run came to."""
    rows = {
        "steps": f"{summary.step:,}" + (f" ({summary.skipped_steps:,} skipped)" if summary.skipped_steps else ""),
        "loss": f"{summary.loss:.4f}",
        "held-out loss": None if summary.eval_loss is None else f"{summary.eval_loss:.4f}",
        "tokens": f"{summary.tokens:,} ({summary.trained_tokens:,} trained)",
        "time": str(timedelta(seconds=round(summary.seconds))),
        "tokens/s": f"{summary.tokens / max(summary.seconds, 1e-9):,.0f}",
        "saved in": None if summary.artifact is None else str(summary.artifact),
    }
    drawn = Table(show_header=False, box=None)
    for name, value in rows.items():
        if value is not None:
            drawn.add_row(name, value)
    return drawn

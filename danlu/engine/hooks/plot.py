"""Draws `loss.png` out of `metrics.jsonl`: what was trained, what was held out, and the learning rate."""

import io
import math
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import PositiveFloat

from danlu.core.files import write_atomic
from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.metrics import read_metrics
from danlu.engine.records import EvalRecord, RunFacts, StepRecord


class Plot(Hook):
    """Keeps loss.png up to date."""

    every_seconds: PositiveFloat = 60.0
    """how long between two drawings; one more is made at the end"""

    def start(self, run: RunFacts) -> Listener:
        return Painter(run.folder, self.every_seconds)


class Painter(Listener):
    """Draws now and then, never for more than a fiftieth of the time."""

    def __init__(self, folder: Path, every_seconds: float) -> None:
        self.folder, self.every_seconds = folder, every_seconds
        self._next = time.monotonic() + every_seconds
        self._stale = False

    def on_step(self, record: StepRecord) -> None:
        self._stale = True
        self._draw_if_due()

    def on_eval(self, record: EvalRecord) -> None:
        self._stale = True

    def close(self) -> None:
        if self._stale:
            draw(self.folder)

    def _draw_if_due(self) -> None:
        began = time.monotonic()
        if began >= self._next:
            self._next = math.inf  # a drawing that fails is not tried at every step
            draw(self.folder)
            now = time.monotonic()
            self._next = now + max(self.every_seconds, 50 * (now - began))
            self._stale = False


def draw(folder: Path) -> None:
    """Write loss.png beside metrics.jsonl."""
    lines = read_metrics(folder / "metrics.jsonl")
    steps = [line for line in lines if line["event"] == "step"]
    figure = Figure(figsize=(8, 6), layout="constrained")
    evals = [line for line in lines if line["event"] == "eval"]
    judged = any("accuracy" in line["metrics"] for line in evals)
    losses, *accuracies, rates = figure.subplots(2 + judged, 1, sharex=True, height_ratios=[3, *[2] * judged, 1])
    draw_training(losses, steps)
    draw_held_out(losses, evals)
    if judged:
        draw_accuracy(accuracies[0], evals)
    losses.set(title=folder.resolve().name, ylabel="loss")
    if losses.get_legend_handles_labels()[0]:
        losses.legend()
    rates.plot([line["step"] for line in steps], [line["lr"] for line in steps])
    rates.set(xlabel="step", ylabel="learning rate")
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a source's Chinese name, say, for which no font is here
        figure.savefig(picture, format="png", dpi=120)
    write_atomic(folder / "loss.png", picture.getvalue())


def draw_training(axes: Axes, steps: list[dict[str, Any]]) -> None:
    """Every step's loss, pale, and a smoothed line over it."""
    finite = [line for line in steps if math.isfinite(line["loss"])]
    numbers, losses = [line["step"] for line in finite], [line["loss"] for line in finite]
    axes.plot(numbers, losses, color="C0", alpha=0.4, label="training, each step")
    axes.plot(numbers, smooth(losses), color="C0", label="training, smoothed")


def draw_held_out(axes: Axes, evals: list[dict[str, Any]]) -> None:
    """One line for each held-out source, or one for all."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in evals:
        for source, loss in (line["sources"] or {"all": line["loss"]}).items():
            curves[source].append((line["step"], loss))
    for number, (source, points) in enumerate(curves.items(), start=1):
        axes.plot(*zip(*points, strict=True), color=f"C{number % 10}", marker="o", label=f"held out: {source}")


def draw_accuracy(axes: Axes, evals: list[dict[str, Any]]) -> None:
    """The share of held-out pairs whose better answer is ahead: of all, and of each source where there are several."""
    names = {name: None for line in evals for name in line["metrics"] if name.partition("/")[0] == "accuracy"}
    for name in names:
        points = [(line["step"], line["metrics"][name]) for line in evals if name in line["metrics"]]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(ylabel="accuracy", ylim=(0, 1))
    axes.legend()


def smooth(losses: list[float]) -> list[float]:
    """A moving average that forgets more slowly the more steps there are, as in LLaMA-Factory's plots."""
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(losses))) - 0.5)
    smoothed: list[float] = []
    for loss in losses:
        smoothed.append(weight * smoothed[-1] + (1 - weight) * loss if smoothed else loss)
    return smoothed

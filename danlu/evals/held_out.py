"""Held-out loss and what else an objective measures, for each source and over all of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Measured:
    """What was found in one pack: a summed loss and what it sums over; metrics in the same way; single values."""

    total: float
    count: float
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class HeldOut:
    """Means over everything that is held out. metrics: where there are several sources, also of each as NAME/SOURCE."""

    loss: float
    sources: dict[str, float]
    metrics: dict[str, float] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)


def held_out_loss(sources: Mapping[str, Sequence[Measured]]) -> HeldOut:
    """Sum over sum: the mean over everything that is held out, and over each source, from what its packs gave."""
    parts = {name: joined(measured) for name, measured in sources.items()}
    whole = joined(parts.values())
    metrics = means(whole)
    if len(parts) > 1:
        metrics |= {f"{name}/{source}": value for source, one in parts.items() for name, value in means(one).items()}
    losses = {name: one.total / one.count for name, one in parts.items() if one.count}
    return HeldOut(whole.total / whole.count if whole.count else float("nan"), losses, metrics, whole.values)


def joined(parts: Iterable[Measured]) -> Measured:
    """Several as one."""
    whole = Measured(0.0, 0.0)
    for part in parts:
        whole.total += part.total
        whole.count += part.count
        for name, (total, count) in part.metrics.items():
            before = whole.metrics.get(name, (0.0, 0.0))
            whole.metrics[name] = (before[0] + total, before[1] + count)
        for name, values in part.values.items():
            whole.values[name] = whole.values.get(name, []) + values
    return whole


def means(one: Measured) -> dict[str, float]:
    """Every metric's mean, and of single values the mean and the standard deviation."""
    found = {name: total / count for name, (total, count) in one.metrics.items() if count and name not in one.values}
    for name, values in one.values.items():
        found |= {f"{name}_mean": float(np.mean(values)), f"{name}_std": float(np.std(values))}
    return found

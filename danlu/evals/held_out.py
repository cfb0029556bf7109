"""Held-out loss, for each source and over all of them."""

from collections.abc import Callable, Mapping, Sequence

import torch

from danlu.data.packing import Pack

Measure = Callable[[Pack], tuple[float, float]]
"""a pack's summed loss and what it sums over"""


@torch.no_grad()
def held_out_loss(measure: Measure, sources: Mapping[str, Sequence[Pack]]) -> tuple[float, dict[str, float]]:
    """Sum over sum: the mean over everything that is held out, and over each source."""
    sums = {name: [measure(pack) for pack in packs] for name, packs in sources.items()}
    totals = {name: (sum(t for t, _ in one), sum(c for _, c in one)) for name, one in sums.items()}
    count = sum(c for _, c in totals.values())
    overall = sum(t for t, _ in totals.values()) / count if count else float("nan")
    return overall, {name: total / count for name, (total, count) in totals.items() if count}

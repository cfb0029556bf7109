"""Sources in turn, until the first is used up or the last has been seen."""

import math
from collections.abc import Sequence
from typing import Literal

from danlu.data.mixture import Blend, Held, Unit
from danlu.data.mixtures.base import Mixture, Ratios, by_name


class Interleave(Mixture):
    """Sources in turn, by shares; `until` says what an epoch is."""

    until: Literal["first", "last"] = "first"
    """an epoch ends when the first source is used up, or when every row of the last was seen, others being repeated"""
    shares: Ratios | None = None
    """what part of training each source is, by name or in order; equal if not given"""
    by: Unit = "rows"
    """what is shared out: rows, tokens, trained_tokens or bytes (of the files, as stored)"""

    def check(self, names: Sequence[str]) -> None:
        if self.shares is not None:
            by_name(self.shares, names, "data.mixture.shares")

    def blend(self, sources: Sequence[Held], epochs: float | None) -> Blend:
        names = [one.name for one in sources]
        weights = by_name(self.shares, names, "data.mixture.shares") if self.shares else [1.0] * len(names)
        lasts = [one.amount(self.by) * sum(weights) / weight for one, weight in zip(sources, weights, strict=True)]
        end = min(lasts) if self.until == "first" else max(lasts)
        return Blend.of(self.by, weights, math.inf if epochs is None else epochs * end)

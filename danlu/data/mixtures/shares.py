"""A share of each source, by rows, tokens, trained tokens or bytes."""

import math
from collections.abc import Sequence
from typing import Self

from pydantic import PositiveFloat, model_validator

from danlu.data.mixture import Blend, Held, Unit
from danlu.data.mixtures.base import Mixture, Ratios, by_name


class Shares(Mixture):
    """Small sources are repeated, of large ones a random part comes; an epoch is as much as all hold together."""

    shares: Ratios | None = None
    """what part of training each source is, by name or in order; they need not sum to 1. What it holds if not given"""
    by: Unit = "rows"
    """what is shared out: rows, tokens, trained_tokens or bytes (of the files, as stored)"""
    temperature: PositiveFloat | None = None
    """without `shares`: they are sizes to the power of 1/temperature; above 1, small sources come more often"""
    max_epochs: PositiveFloat | dict[str, PositiveFloat] | None = None
    """the most epochs of each source; then it is done, and the others go on by their shares"""

    @model_validator(mode="after")
    def _shares_or_temperature(self) -> Self:
        if self.shares is not None and self.temperature is not None:
            raise ValueError("give either shares: or temperature:, which makes shares from sizes")
        return self

    def check(self, names: Sequence[str]) -> None:
        if self.shares is not None:
            by_name(self.shares, names, "data.mixture.shares")
        if isinstance(self.max_epochs, dict):
            by_name(dict.fromkeys(names, 1.0) | self.max_epochs, names, "data.mixture.max_epochs")

    def blend(self, sources: Sequence[Held], epochs: float | None) -> Blend:
        total = math.inf if epochs is None else epochs * sum(one.amount(self.by) for one in sources)
        caps = zip(self.caps([one.name for one in sources]), sources, strict=True)
        most = [math.inf if math.isinf(cap) else cap * one.amount(self.by) for cap, one in caps]
        return Blend.of(self.by, self.weights(sources), total, most)

    def weights(self, sources: Sequence[Held]) -> list[float]:
        """Shares as given, or from sizes."""
        if self.shares is not None:
            return by_name(self.shares, [one.name for one in sources], "data.mixture.shares")
        return [one.amount(self.by) ** (1 / (self.temperature or 1.0)) for one in sources]

    def caps(self, names: Sequence[str]) -> list[float]:
        caps = self.max_epochs
        return [caps.get(name, math.inf) if isinstance(caps, dict) else caps or math.inf for name in names]

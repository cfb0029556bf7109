"""Every row of every source once an epoch, in one order."""

from collections.abc import Sequence

from danlu.data.mixture import Blend, Held
from danlu.data.mixtures.base import Mixture


class Concat(Mixture):
    """All sources end to end; shuffled, every row has the same chance of every place."""

    def blend(self, sources: Sequence[Held], epochs: float | None) -> Blend | None:
        return None

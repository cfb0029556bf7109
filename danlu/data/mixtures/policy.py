"""A sampling policy: a file that says how much of each source is drawn, as a share of the size of them all."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from danlu.data.mixture import Blend, Held
from danlu.data.mixtures.base import Mixture, by_name
from danlu.data.sampling import read_policy, size_of


class Policy(Mixture):
    """Draw each source's ratio of the stored size of all; `danlu data policy` writes the file."""

    file: Path
    """a JSON file {"NAME": ratio}, each above 0 and below 1, every source in it; they need not sum to 1"""

    def check(self, names: Sequence[str]) -> None:
        self.ratios(names)

    def ratios(self, names: Sequence[str]) -> list[float]:
        """One ratio for each source."""
        return by_name(read_policy(self.file), names, str(self.file))

    def blend(self, sources: Sequence[Held], epochs: float | None) -> Blend:
        ratios = self.ratios([one.name for one in sources])
        size = sum(one.amount("bytes") for one in sources) * sum(ratios)
        return Blend.of("bytes", ratios, math.inf if epochs is None else epochs * size)

    def told(self, sources: Sequence[Held]) -> Iterator[str]:
        size = sum(one.amount("bytes") for one in sources)
        for one, ratio in zip(sources, self.ratios([one.name for one in sources]), strict=True):
            drawn, held = size * ratio, one.amount("bytes")
            yield (
                f"[Sample Policy] {one.name}: {round(one.files * drawn / held)}/{one.files} - "
                f"{size_of(drawn)}/{size_of(held)} ({drawn / held:.1f} epochs)"
            )

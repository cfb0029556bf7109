"""What every mixture does: from what the sources hold to how much each gives."""

import math
from collections.abc import Iterator, Sequence

from pydantic import PositiveFloat

from danlu.core.errors import DataError
from danlu.core.parts import Part, did_you_mean
from danlu.data.mixture import Blend, Held

Ratios = dict[str, PositiveFloat] | list[PositiveFloat]
"""a number for each source, by name or in their order"""


class Mixture(Part):
    """How several sources become one stream of rows."""

    def check(self, names: Sequence[str]) -> None:
        """Refuse settings that do not fit these sources, before any is read."""

    def blend(self, sources: Sequence[Held], epochs: float | None) -> Blend | None:
        """The shares and how much each source gives; None where all rows are one order. `epochs` None: without end."""
        raise NotImplementedError

    def caps(self, names: Sequence[str]) -> list[float]:
        """The most epochs of each source."""
        return [math.inf] * len(names)

    def told(self, sources: Sequence[Held]) -> Iterator[str]:
        """What a person should know before training, a line each."""
        yield from ()


def by_name(ratios: Ratios, names: Sequence[str], setting: str) -> list[float]:
    """One number for each source, in their order."""
    if isinstance(ratios, list):
        if len(ratios) != len(names):
            raise DataError(
                f"{setting}: the number of sources and of shares should be the same: "
                f"{len(names)} sources ({', '.join(names)}), {len(ratios)} shares"
            )
        return list(ratios)
    missing = [name for name in names if name not in ratios]
    unknown = [name for name in ratios if name not in names]
    if missing or unknown:
        words = [f"no number for {', '.join(missing)}"] if missing else []
        words += [f"no source is called {name!r}{did_you_mean(name, list(names))}" for name in unknown]
        raise DataError(f"{setting}: sources and shares should be the same names: {'; '.join(words)}")
    return [ratios[name] for name in names]

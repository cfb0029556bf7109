"""The arithmetic of a sampling policy: sizes in, shares and epochs out. It draws nothing and asks nothing.

A policy gives each source a ratio of the size of all sources together. Ratios need not sum to 1: what is left of 1 is
not drawn, and what is over is drawn again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.core.errors import DataError, UserError

DIGITS = 4
"""of a ratio in a policy file"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One source in a policy: what it holds and what is drawn of it."""

    name: str
    size: float
    share: float
    """what part of all sources it is, 0-1"""
    ratio: float
    """what part of the size of all sources is drawn from it, 0-1"""

    @property
    def epochs(self) -> float:
        """How often each of its rows is learnt from."""
        return round(self.ratio / self.share, 2)

    @property
    def drawn(self) -> float:
        """The size that is drawn."""
        return self.ratio / self.share * self.size


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sizes and ratios of some sources."""

    sources: tuple[Drawn, ...]

    @classmethod
    def of(cls, sizes: Mapping[str, float], ratios: Mapping[str, float] | None = None) -> "Sampling":
        """Every source once, except where a ratio is given."""
        total = sum(sizes.values())
        if not sizes or min(sizes.values()) <= 0:
            raise UserError(f"sizes are numbers above 0, found {dict(sizes)}")
        ratios = ratios or {}
        for name in ratios:
            if name not in sizes:
                raise UserError(f"no source is called {name!r}; the sources are {', '.join(sizes)}")
        shares = {name: size / total for name, size in sizes.items()}
        return cls(tuple(Drawn(name, sizes[name], share, ratios.get(name, share)) for name, share in shares.items()))

    @property
    def left(self) -> float:
        """What part of the size of all is not given to any; below 0 where more is given than there is."""
        return 1 - sum(one.ratio for one in self.sources)

    def original(self) -> dict[str, float]:
        """Each source's part of all sources."""
        return {one.name: round(one.share, DIGITS) for one in self.sources}

    def policy(self) -> dict[str, float]:
        """What a policy file holds."""
        return {one.name: round(one.ratio, DIGITS) for one in self.sources}

    def with_ratio(self, name: str, ratio: float) -> "Sampling":
        """The same sources, one of them drawn otherwise."""
        given = {one.name: one.ratio for one in self.sources} | {name: ratio}
        return Sampling.of({one.name: one.size for one in self.sources}, given)


def checked_ratio(name: str, ratio: Any, where: str) -> float:
    """A ratio above 0 and below 1, or an error."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1:
        raise DataError(f"{where}: {name!r}: a ratio is a number above 0 and below 1, found {ratio!r}")
    return float(ratio)


def read_policy(file: Path) -> dict[str, float]:
    """A policy file {"NAME": ratio}."""
    try:
        policy = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: not a policy file ({error.strerror}); `danlu data policy` writes one") from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    if not isinstance(policy, dict) or not policy:
        raise DataError(f'{file}: a policy is {{"NAME": ratio, ...}}')
    return {name: checked_ratio(name, ratio, str(file)) for name, ratio in policy.items()}


def size_of(count: float) -> str:
    """Bytes for people: 1.3GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f}B" if unit == "B" else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}TB"

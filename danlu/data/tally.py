"""What each source has given so far, in rows and tokens; it travels in the cursor, so that no restart forgets it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from danlu.data.packing import Pack


@dataclass(slots=True)
class Given:
    """One source's part of training."""

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0


@dataclass(slots=True)
class Tally:
    """Every source's part, by name."""

    sources: dict[str, Given] = field(default_factory=dict)

    def add(self, packs: Iterable[Pack]) -> None:
        """Count the segments of a step. A segment's first token is nobody's target."""
        for pack in packs:
            trained = (pack.targets >= 0).cumsum(0)[pack.cu_seqlens[1:] - 1].tolist()
            before = 0
            for segment, length, upto in zip(pack.segments, pack.lengths, trained, strict=True):
                one = self.sources.get(segment.source)
                if one is None:
                    one = self.sources[segment.source] = Given()
                one.rows += segment.rank == 0
                one.tokens += length
                one.trained_tokens += upto - before
                before = upto

    def merge(self, other: "Tally") -> None:
        """Add what was counted elsewhere."""
        for name, one in other.sources.items():
            mine = self.sources.setdefault(name, Given())
            for key in Given.__slots__:
                setattr(mine, key, getattr(mine, key) + getattr(one, key))

    def state(self) -> dict[str, list[int]]:
        """As JSON, to go on from."""
        return {name: [one.rows, one.tokens, one.trained_tokens] for name, one in self.sources.items()}

    @classmethod
    def of(cls, state: Mapping[str, Iterable[int]]) -> "Tally":
        """Read back what `state` wrote."""
        return cls({name: Given(*counts) for name, counts in state.items()})

    def facts(self, epochs: Mapping[str, float]) -> dict[str, float]:
        """Each source's share of the tokens and its epochs, where there are several."""
        if len(epochs) < 2:
            return {}
        total = sum(one.tokens for one in self.sources.values()) or 1
        shares = {f"share/{name}": one.tokens / total for name, one in sorted(self.sources.items())}
        return shares | {f"epochs/{name}": epochs[name] for name in sorted(self.sources)}

    def epochs(self, held: Mapping[str, float]) -> dict[str, float]:
        """How often each source's rows came. `held`: rows of each."""
        return {name: self.sources.get(name, Given()).rows / max(1, rows) for name, rows in held.items()}

    def realised(self, held: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """For the report: what each source gave, its shares of the whole, and how often its rows came."""
        sums = {key: sum(getattr(one, key) for one in self.sources.values()) or 1 for key in Given.__slots__}
        return {
            name: asdict(one)
            | {f"share_of_{key}": round(getattr(one, key) / sums[key], 6) for key in Given.__slots__}
            | ({"epochs": round(one.rows / held[name], 4)} if held.get(name) else {})
            for name, one in sorted(self.sources.items())
        }


def lines(realised: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The same for people, a line each."""
    for name, one in realised.items():
        epochs = f", {one['epochs']:.2f} epochs" if "epochs" in one else ""
        yield (
            f"{name}: {one['rows']:,} rows{epochs}, {one['tokens']:,} tokens ({one['share_of_tokens']:.1%}), "
            f"{one['trained_tokens']:,} trained ({one['share_of_trained_tokens']:.1%})"
        )

"""Steps of packs in one global order: the same for any number of workers, ranks or restarts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from danlu.data.packing import Pack


@dataclass(slots=True)
class Step:
    """What one optimiser step trains on. `cursor` (JSON) is where the order stands *after* this step."""

    packs: list[Pack]
    epoch: float
    cursor: dict[str, Any]


class Loader:
    """To be written: the stream of steps over a tokenised mixture."""

    def __iter__(self) -> Iterator[Step]:
        raise NotImplementedError

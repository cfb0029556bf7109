"""The order in which rows are learnt from: fixed by the seed, and known at any place without what came before."""

from typing import Any

import numpy as np


class Order:
    """An endless row of row numbers, a new permutation each epoch. `stream`: which of several under one seed."""

    def __init__(self, num_rows: int, seed: int, shuffle: bool, stream: int = 0) -> None:
        self.num_rows, self.seed, self.shuffle, self.stream = num_rows, seed, shuffle, stream
        self._epoch, self._rows = -1, np.zeros(0, np.int64)

    def epoch(self, number: int) -> np.ndarray:
        """[num_rows] the rows of one epoch in their order."""
        if number != self._epoch:
            rows = np.arange(self.num_rows, dtype=smallest(self.num_rows))
            self._epoch, self._rows = number, self._random(number).permutation(rows) if self.shuffle else rows
        return self._rows

    def _random(self, epoch: int) -> np.random.Generator:
        # Philox is counter-based: epoch 1000 is as near as epoch 0.
        key = [self.seed % 2**64, epoch]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, self.stream]))

    def slice(self, start: int, count: int) -> np.ndarray:
        """[count] the rows from a place on, which is counted over all epochs."""
        parts = []
        while count > 0:
            epoch, place = divmod(start, self.num_rows)
            parts.append(self.epoch(epoch)[place : place + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts or [np.zeros(0, np.int64)])


def smallest(count: int) -> np.dtype[Any]:
    """The type that holds numbers below `count`: rows by the ten million are kept small."""
    return np.min_scalar_type(max(0, count - 1))


def spread(seed: int, places: np.ndarray) -> np.ndarray:
    """places[R, 2] (file, row) as numbers[R] in 0–1 that only the seed and the place decide (splitmix64)."""
    with np.errstate(over="ignore"):
        state = np.full(len(places), seed % 2**64, np.uint64)
        for column in places.T.astype(np.uint64):
            state = (state ^ column) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)) / 2.0**53


def held_out_rows(seed: int, places: np.ndarray, held_out: float) -> np.ndarray:
    """[R] bool: which rows are kept for evaluation. Pieces of one row stay together; a share keeps at least one row."""
    luck = spread(seed, places)
    if held_out < 1:
        held = luck < held_out
        few = held_out > 0 and len(luck) > 0 and not held.any() and luck.min() < luck.max()
        return luck == luck.min() if few else held
    first = np.append(True, (places[1:] != places[:-1]).any(axis=1))[: len(places)]  # pieces of a row are neighbours
    chosen = np.zeros(first.sum(), bool)
    chosen[np.argsort(luck[first], kind="stable")[: int(held_out)]] = True
    return chosen[np.cumsum(first) - 1]

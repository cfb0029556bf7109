"""The order in which rows are learnt from: fixed by the seed, and known at any place without what came before."""

import numpy as np


class Order:
    """An endless row of row numbers, a new permutation each epoch."""

    def __init__(self, num_rows: int, seed: int, shuffle: bool) -> None:
        self.num_rows, self.seed, self.shuffle = num_rows, seed, shuffle
        self._epoch, self._rows = -1, np.zeros(0, np.int64)

    def epoch(self, number: int) -> np.ndarray:
        """[num_rows] the rows of one epoch in their order."""
        if number != self._epoch:
            # Philox is counter-based: epoch 1000 is as near as epoch 0.
            random = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, number]))
            rows = random.permutation(self.num_rows) if self.shuffle else np.arange(self.num_rows)
            self._epoch, self._rows = number, rows
        return self._rows

    def at(self, position: int) -> int:
        """The row at a place, counted over all epochs."""
        epoch, place = divmod(position, self.num_rows)
        return int(self.epoch(epoch)[place])


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
    rows, back = np.unique(places, axis=0, return_inverse=True)
    chosen = np.argsort(spread(seed, rows), kind="stable")[: int(held_out)]
    return np.isin(back.reshape(-1), chosen)

"""Rows that are nearly the same as an earlier one, found by MinHash: https://doi.org/10.1109/SEQUEN.1997.666900"""

from collections.abc import Iterable, Iterator

import numpy as np

from danlu.core.errors import SetupError
from danlu.core.optional import install_command

try:
    from datasketch import MinHash, MinHashLSH
except ModuleNotFoundError as error:
    raise SetupError(f"near duplicates need datasketch: {install_command('datasketch')}") from error

WIDTH = 5
"""ids of one shingle: with fewer all chats are alike, with more none are"""
PERMUTATIONS = 64


def near_duplicates(rows: Iterable[np.ndarray], alike: float) -> Iterator[tuple[int, int]]:
    """(row, earlier row) for each row whose shingles are about `alike` (0-1, Jaccard) those of an earlier one."""
    known = MinHashLSH(alike, PERMUTATIONS)
    empty = MinHash(PERMUTATIONS, hashfunc=int)
    for number, ids in enumerate(rows):
        sketch = empty.copy()
        sketch.update_batch(shingles(ids).tolist())
        found = known.query(sketch)
        if found:
            yield number, min(int(str(one)) for one in found)
        else:  # a family of alike rows is kept by its first one
            known.insert(number, sketch)


def shingles(ids: np.ndarray) -> np.ndarray:
    """[n] 32 bits: a hash of every few neighbouring ids."""
    windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64), min(WIDTH, len(ids)))
    factors = np.full(windows.shape[1], 0x9E3779B97F4A7C15, np.uint64).cumprod(dtype=np.uint64)
    return np.unique((windows * factors).sum(1, dtype=np.uint64) >> np.uint64(32))

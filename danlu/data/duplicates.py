"""Rows that are there twice, to the last id."""

import numpy as np


def repeated(hashes: np.ndarray) -> np.ndarray:
    """The rows whose hash an earlier row has, in order."""
    order = np.argsort(hashes, kind="stable")
    same = np.zeros(len(hashes), bool)
    same[order[1:]] = hashes[order[1:]] == hashes[order[:-1]]
    return np.flatnonzero(same)

"""A step that did not fit into the device's memory: what overflowed, without the frames that hold its tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

UPDATE = "the optimiser's update"
"""the one term that smaller packs do not make smaller"""


class Overflow(Exception):
    """`term` names what was being made, `words` are torch's own first line."""

    def __init__(self, term: str, words: str) -> None:
        super().__init__(term, words)
        self.term, self.words = term, words


@contextmanager
def overflowing(term: str) -> Iterator[None]:
    """Inside, torch's error becomes an `Overflow`; raised outside of it, so that nothing holds on to its frames."""
    words = None
    try:
        yield
    except torch.OutOfMemoryError as error:
        words = str(error).partition("\n")[0]
    if words is not None:
        raise Overflow(term, words)

"""Heavy imports, when a verb has been chosen."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import without the garbage collector, which would look through a million new objects a hundred times."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
